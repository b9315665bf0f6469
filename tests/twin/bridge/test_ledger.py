"""The audit chain shows every change of its past, survives a crash visibly, and has one writer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twin.bridge import ledger as ledgers
from twin.bridge.ledger import GENESIS, NO_OUTCOME, TORN, Ledger, records, verify
from twin.errors import LedgerError

ROOT = Path(ledgers.__file__).parents[2]


@pytest.fixture
def written(tmp_path, clock):
    """A closed ledger of six records."""
    path = tmp_path / "written.jsonl"
    with Ledger.open(path, clock) as ledger:
        ledger.append("start", {"policy": "p@1"})
        for key in ("a", "b"):
            ledger.append("intent", {"key": key, "value": 3, "reason": "überlast"})
            ledger.append("outcome", {"key": key, "status": "applied"})
        ledger.append("stop", {"status": "completed"})
    return path


# ---------------------------------------------------------------- the chain


def test_each_record_carries_the_hash_of_the_one_before(written):
    chain = list(records(written))
    assert [r.seq for r in chain] == [1, 2, 3, 4, 5, 6]
    assert [r.previous for r in chain] == [GENESIS, *(r.hash for r in chain[:-1])]
    assert len({r.hash for r in chain}) == 6
    assert verify(written) == 6


def test_times_come_from_the_given_clock_in_utc(written):
    assert [r.time for r in records(written)][:2] == [
        "2026-01-01T00:00:01.000000+00:00",
        "2026-01-01T00:00:02.000000+00:00",
    ]


def test_same_clock_and_bodies_give_the_same_bytes(tmp_path, make_plant, clock):
    for name in ("one", "two"):
        with Ledger.open(tmp_path / name, type(clock)()) as ledger:
            ledger.append("note", {"b": 1, "a": [1.5, None]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_chain_goes_on_where_it_ended(written, clock):
    head = list(records(written))[-1].hash
    with Ledger.open(written, clock) as ledger:
        assert (ledger.count, ledger.head, ledger.recovered) == (6, head, ())
        assert ledger.append("start", {}).previous == head
    assert verify(written) == 7


def test_an_empty_ledger_verifies(tmp_path, clock):
    Ledger.open(tmp_path / "new", clock).close()
    assert verify(tmp_path / "new") == 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_noticed_and_its_line_named(written, data):
    original = written.read_bytes()
    position = data.draw(st.integers(0, len(original) * 8 - 1))
    changed = bytearray(original)
    changed[position // 8] ^= 1 << position % 8
    line = original[: position // 8].count(b"\n") + 1
    copy = written.with_name("changed.jsonl")
    copy.write_bytes(bytes(changed))
    with pytest.raises(LedgerError, match=f"line {line} "):
        verify(copy)


@pytest.mark.parametrize("removed", [0, 1, 4])
def test_a_removed_record_is_noticed_at_the_line_after_it(written, removed, clock):
    lines = written.read_bytes().splitlines(keepends=True)
    del lines[removed]
    written.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError, match=f"line {removed + 1} does not follow"):
        verify(written)
    with pytest.raises(LedgerError, match="start a new ledger"):
        Ledger.open(written, clock)


def test_swapped_and_repeated_records_are_noticed(written):
    lines = written.read_bytes().splitlines(keepends=True)
    for order in ([0, 2, 1, 3, 4, 5], [0, 1, 1, 2, 3, 4, 5]):
        written.write_bytes(b"".join(lines[i] for i in order))
        with pytest.raises(LedgerError, match="does not follow"):
            verify(written)


def test_a_record_rewritten_with_a_fitting_hash_shows_at_the_line_after_it(written, tmp_path, clock):
    """Whoever forges a record must forge all that follow."""
    with Ledger.open(tmp_path / "forged", clock) as forged:
        for record in records(written):
            forged.append(cast(ledgers.Kind, record.kind), record.body | {"status": "never happened"})
    lines = written.read_bytes().splitlines(keepends=True)
    lines[2] = (tmp_path / "forged").read_bytes().splitlines(keepends=True)[2]
    original = list(records(written))[2]
    taken = ledgers._record(3, clock(), "outcome", {"key": "a"}, original.previous, "")
    written.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError, match="line 3 does not follow"):
        verify(written)
    lines[2] = taken.line()
    written.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError, match="line 4 does not follow"):
        verify(written)


def test_records_cut_off_at_the_end_show_against_a_head_kept_elsewhere(written):
    lines = written.read_bytes().splitlines(keepends=True)
    head = json.loads(lines[-1])["hash"]
    assert verify(written, head=head) == 6
    written.write_bytes(b"".join(lines[:-1]))
    assert verify(written) == 5
    with pytest.raises(LedgerError, match="cut off"):
        verify(written, head=head)


def test_a_foreign_file_is_not_continued(tmp_path, clock):
    for content in (b'{"some": "json"}\n', b"text\n", b"\xff\xfe\n", b"[1]\n", b"[" * 100_000 + b"\n"):
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(LedgerError, match="line 1 is not a record"):
            Ledger.open(tmp_path / "f", clock)
        assert (tmp_path / "f").read_bytes() == content


# ---------------------------------------------------------------- crashes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 200), garbage=st.sampled_from([b"", b"\0\0\0"]))
def test_a_torn_last_line_is_moved_aside_and_the_chain_goes_on(tmp_path_factory, written, clock, cut, garbage):
    folder = tmp_path_factory.mktemp("torn")
    whole = written.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    cut = min(cut, len(last) - 1)
    path = folder / "ledger.jsonl"
    path.write_bytes(whole[:-cut] + garbage)
    with pytest.raises(LedgerError, match="line 6 is torn"):
        verify(path)
    with Ledger.open(path, clock) as ledger:
        [note] = ledger.recovered
        assert note["event"] == TORN
        ledger.append("note", {})
    assert (folder / note["file"]).read_bytes() == last[:-cut] + garbage
    chain = list(records(path))
    assert chain[5].body == note
    assert verify(path) == 7


def test_a_torn_first_line_is_moved_aside_too(tmp_path, clock):
    (tmp_path / "l").write_bytes(b'{"body":')
    with Ledger.open(tmp_path / "l", clock) as ledger:
        assert [n["event"] for n in ledger.recovered] == [TORN]
    assert verify(tmp_path / "l") == 1


def test_a_second_crash_before_the_note_loses_nothing(tmp_path, written, clock, monkeypatch):
    """The part cut off is found again by its name when its note was not written yet."""
    whole = written.read_bytes()
    written.write_bytes(whole[:-5])

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", die)
        with pytest.raises(KeyboardInterrupt):
            Ledger.open(written, clock)
    with Ledger.open(written, clock) as ledger:
        assert [n["event"] for n in ledger.recovered] == [TORN]
    with Ledger.open(written, clock) as ledger:
        assert ledger.recovered == ()


def test_an_intent_without_outcome_is_reported_once(written, clock):
    with Ledger.open(written, clock) as ledger:
        ledger.append("intent", {"key": "c"})
    with Ledger.open(written, clock) as ledger:
        assert ledger.recovered == ({"event": NO_OUTCOME, "intents": {"c": 7}},)
    with Ledger.open(written, clock) as ledger:
        assert ledger.recovered == ()
    assert [r.kind for r in records(written)][-2:] == ["intent", "note"]


def test_a_killed_writer_leaves_the_lock_and_every_record_it_returned_from(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom twin.bridge.ledger import Ledger\n"
        "ledger = Ledger.open(Path(sys.argv[1]))\n"
        "ledger.append('intent', {'key': 'k'})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "killed"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert ended.returncode == -9
    with Ledger.open(path) as ledger:
        assert ledger.recovered == ({"event": NO_OUTCOME, "intents": {"k": 1}},)


# ---------------------------------------------------------------- one writer, or none


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path, clock):
    first = Ledger.open(tmp_path / "l", clock)
    with pytest.raises(LedgerError, match="another session"):
        Ledger.open(tmp_path / "l", clock)
    first.append("note", {})
    first.close()
    first.close()
    with Ledger.open(tmp_path / "l", clock) as second:
        assert second.count == 1


def test_a_file_changed_under_the_writer_ends_the_ledger(ledger):
    ledger.append("note", {})
    with ledger.path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(LedgerError, match="somebody else changed it"):
        ledger.append("note", {})
    with pytest.raises(LedgerError, match="closed"):
        ledger.append("note", {})


def test_a_failed_write_ends_the_ledger(ledger, monkeypatch):
    """After it nobody knows what is on the disk, so nothing may follow."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match="No space left"):
        ledger.append("note", {})
    monkeypatch.undo()
    assert ledger.closed
    with pytest.raises(LedgerError, match="closed"):
        ledger.append("note", {})


@pytest.mark.parametrize(
    "body", [{"x": float("nan")}, {"x": object()}, {1: 1, "a": 2}], ids=["nan", "object", "mixed keys"]
)
def test_a_body_that_json_cannot_hold_is_refused_and_leaves_the_chain_whole(ledger, body):
    with pytest.raises(LedgerError, match="not JSON"):
        ledger.append("note", body)
    ledger.append("note", {"fine": True})
    assert verify(ledger.path) == 1


def test_unknown_kinds_and_intents_without_key_are_refused(ledger):
    with pytest.raises(LedgerError, match="no record kind 'gossip'"):
        ledger.append("gossip", {})
    with pytest.raises(LedgerError, match="without its key"):
        ledger.append("intent", {"value": 3})


def test_a_ledger_in_no_folder_is_refused(tmp_path, clock):
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.open(tmp_path / "none" / "l", clock)
    with pytest.raises(LedgerError, match="cannot be read"):
        verify(tmp_path / "none")


def test_each_record_is_synced_before_append_returns(ledger, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size) or real(descriptor))
    record = ledger.append("note", {})
    assert synced == [len(record.line())]


def test_the_file_is_for_its_owner_only(ledger):
    assert ledger.path.stat().st_mode & 0o777 == 0o600
