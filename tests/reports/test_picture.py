"""Pictures for a README: small, whole, and made without a browser."""

import xml.etree.ElementTree as ElementTree
import zlib

import pytest

from reports import picture
from twin.errors import UsageError


def test_a_png_is_small_and_whole(small_folder, tmp_path):
    out = picture.picture(small_folder, tmp_path / "run.png")
    content = out.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert 20_000 < len(content) <= picture.MAX_BYTES
    assert [p.name for p in tmp_path.iterdir()] == ["run.png"]


def test_an_svg_holds_the_matrix_and_the_panels(small_folder, tmp_path):
    out = picture.picture(small_folder, tmp_path / "run.svg")
    words = "".join(ElementTree.parse(out).getroot().itertext())
    assert out.stat().st_size <= picture.MAX_BYTES
    for said in (
        "late_ratio · web: ratio to hpa",
        "cost_usd · cluster",
        "Scenario recorded",
        "Late, dropped or failed requests",
    ):
        assert said in words


def pixels(png: bytes) -> bytes:
    at, packed = 8, b""
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += 12 + length
    return zlib.decompress(packed)


def test_packing_a_png_keeps_its_pixels():
    import vl_convert

    png = vl_convert.svg_to_png('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><circle r="20"/></svg>')
    packed = picture._packed(png)
    assert pixels(packed) == pixels(png)
    assert packed[:33] == png[:33]  # signature and header
    at = 8
    while at < len(packed):
        length = int.from_bytes(packed[at : at + 4], "big")
        body = packed[at + 4 : at + 8 + length]
        assert zlib.crc32(body) == int.from_bytes(packed[at + 8 + length : at + 12 + length], "big")
        at += 12 + length


def test_other_suffixes_are_refused(small_folder, tmp_path):
    with pytest.raises(UsageError, match="change the suffix"):
        picture.picture(small_folder, tmp_path / "run.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_results_has_no_picture(tmp_path):
    (tmp_path / "identity.json").write_text('{"format_version": 1}')
    with pytest.raises(UsageError, match="run a benchmark first"):
        picture.picture(tmp_path, tmp_path / "run.png")
