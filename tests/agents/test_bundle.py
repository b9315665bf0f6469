"""A bundle is what its promoter signed, to the last bit, or it is refused with the name of the culprit."""

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from agents import bundle
from agents.policy import Inference, PolicySpec
from twin.errors import BundleError
from twin.types import Limits, Observation, RateLimit

COLUMNS = ("web.demand_rps", "web.wanted_replicas", "web.ready_replicas")
STEPS = 4
SPEC = PolicySpec(
    name="tiny",
    version="3",
    columns=COLUMNS,
    steps=STEPS,
    interval_s=60.0,
    services=("web",),
    signals=("load", "trend"),
    reason="load {load:.1f} and trend {trend:.1f} ask for {replicas} replicas",
    confidence_meaning="none: a hand-made graph",
)
WEIGHTS = np.random.default_rng(7).normal(size=(STEPS * len(COLUMNS), 4)).astype(np.float32)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PASS = {"decision": "pass", "candidate": "tiny@3", "checks": [{"rule": "cost", "value": 0.9}]}
EVIDENCE = {"trace_digest": "00ff", "seeds": [1, 2, 3], "windows_s": {"train": [0.0, 3600.0], "test": [3600.0, 7200.0]}}
LIMITS = Limits(2, 40, RateLimit(60.0, 100.0, 4), RateLimit(300.0, 10.0, 1))


def network(window):
    """The 'trained network': what the graph must say."""
    said = window.reshape(-1).astype(np.float64) @ WEIGHTS
    confidence = 1.0 / (1.0 + np.exp(-said[3]))
    return Inference(np.array([said[0]], np.float32), float(confidence), said[1:3].astype(np.float32))


def write_graph(path, weights=WEIGHTS):
    """The same network as an ONNX graph: a matrix product, split, and a sigmoid for the confidence."""
    constants = {
        "weights": weights,
        "flat": np.array([1, -1], np.int64),
        "parts": np.array([1, 2, 1], np.int64),
        "one": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["window", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["said"]),
        helper.make_node("Split", ["said", "parts"], ["replicas", "signals", "logit"], axis=1),
        helper.make_node("Sigmoid", ["logit"], ["share"]),
        helper.make_node("Reshape", ["share", "one"], ["confidence"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, [1, STEPS, len(COLUMNS)])],
        [
            helper.make_tensor_value_info("replicas", TensorProto.FLOAT, [1, 1]),
            helper.make_tensor_value_info("confidence", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("signals", TensorProto.FLOAT, [1, 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))


def windows(count=5):
    return np.random.default_rng(11).uniform(-1.0, 1.0, (count, STEPS, len(COLUMNS))).astype(np.float32)


PARITY = bundle.Parity.record(network, windows())


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    write_graph(folder / "graph.onnx")
    SPEC.write(folder)
    return folder


@pytest.fixture(scope="module")
def signed(policy, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    make(out, policy)
    return out


@pytest.fixture
def copy(signed, tmp_path):
    return Path(shutil.copytree(signed, tmp_path / "copy"))


def make(out, policy, **changed):
    graph = policy / "graph.onnx"
    judged = {"graph_sha256": hashlib.sha256(graph.read_bytes()).hexdigest()} if graph.is_file() else {}
    arguments = {
        "verdict": PASS | judged,
        "evidence": EVIDENCE,
        "limits": LIMITS,
        "parity": PARITY,
        "key": KEY,
    } | changed
    return bundle.create(out, policy, **arguments)


def refused(folder, key=KEY):
    """The message with which the folder is refused."""
    with pytest.raises(BundleError) as error:
        bundle.verify(folder, key.public_key())
    with pytest.raises(BundleError):
        bundle.open(folder, key.public_key())
    return str(error.value)


def test_a_verdict_on_another_graph_is_refused(policy, tmp_path):
    """What was judged and what is signed are the same bytes."""
    with pytest.raises(BundleError, match=r"not on .*graph\.onnx; judge this one"):
        make(tmp_path / "out", policy, verdict=PASS | {"graph_sha256": "0" * 64})
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- a good bundle


def test_a_bundle_holds_exactly_its_six_files(signed):
    assert {p.name for p in signed.iterdir()} == {*bundle.FILES, bundle.MANIFEST, bundle.SIGNATURE}


def test_the_manifest_says_what_it_is_and_verifies_as_it_was_made(signed, policy, tmp_path):
    made = make(tmp_path / "again", policy)
    assert bundle.verify(signed, KEY.public_key()) == made
    assert (made.policy, made.version, made.columns, made.targets) == ("tiny", "3", COLUMNS, ("web",))
    assert made.limits == LIMITS
    assert made.evidence == EVIDENCE
    assert (made.decision, made.candidate) == ("pass", "tiny@3")


def test_equal_arguments_give_equal_bytes(signed, policy, tmp_path):
    make(tmp_path / "again", policy)
    for path in signed.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_another_seed_is_another_bundle(signed, policy, tmp_path):
    other = make(tmp_path / "other", policy, evidence=EVIDENCE | {"seeds": [4]})
    assert other.bundle_id != bundle.verify(signed, KEY.public_key()).bundle_id


def test_the_opened_policy_answers_as_the_trained_network(signed):
    policy, manifest = bundle.open(signed, KEY.public_key())
    assert policy.name == "tiny@3"
    assert manifest.interval_s == policy.interval_s
    rows = windows(1)[0] * 10
    answers = [policy.decide(Observation(60.0 * turn, COLUMNS, row)) for turn, row in enumerate(rows)]
    assert answers[:-1] == [[], [], []]
    actions = answers[-1]
    said = network(rows)
    assert [a.value for a in actions] == [int(np.ceil(said.replicas[0] - 1e-3))]
    assert actions[0].confidence == pytest.approx(said.confidence, abs=1e-6)


def test_what_runs_is_what_was_verified_even_if_the_folder_changes_afterwards(copy):
    """The graph is loaded from the verified bytes, not read a second time by its name."""
    policy, _ = bundle.open(copy, KEY.public_key())
    shutil.rmtree(copy)
    assert policy.decide(Observation(0.0, COLUMNS, windows(1)[0, 0])) == []


# ---------------------------------------------------------------- refusals when making one


@pytest.mark.parametrize("decision", ["refuse", "needs a human", "PASS", "", None, True])
def test_only_a_passed_policy_becomes_a_bundle(policy, tmp_path, decision):
    with pytest.raises(BundleError, match="not 'pass'"):
        make(tmp_path / "out", policy, verdict=PASS | {"decision": decision})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", bundle.EVIDENCE)
def test_evidence_must_be_complete(policy, tmp_path, key):
    with pytest.raises(BundleError, match=key):
        make(tmp_path / "out", policy, evidence={k: v for k, v in EVIDENCE.items() if k != key})


def test_a_verdict_without_candidate_is_refused(policy, tmp_path):
    with pytest.raises(BundleError, match="candidate"):
        make(tmp_path / "out", policy, verdict={"decision": "pass"})


def test_values_that_json_cannot_hold_are_refused_and_leave_nothing(policy, tmp_path):
    with pytest.raises(BundleError, match=r"manifest\.json.*None for unknown"):
        make(tmp_path / "out", policy, evidence=EVIDENCE | {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_never_written_over(policy, copy):
    before = (copy / bundle.MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="exists"):
        make(copy, policy)
    assert (copy / bundle.MANIFEST).read_bytes() == before


def test_a_graph_that_answers_otherwise_than_the_network_is_not_signed(policy, tmp_path):
    off = replace(PARITY, replicas=PARITY.replicas + np.float32(1e-4))
    with pytest.raises(BundleError, match=r"window 0 the graph differs"):
        make(tmp_path / "out", policy, parity=off)
    assert not list(tmp_path.iterdir())


def test_an_error_below_the_tolerance_is_parity(policy, tmp_path):
    make(tmp_path / "out", policy, parity=replace(PARITY, signals=PARITY.signals + np.float32(2e-6)))


@pytest.mark.parametrize(
    "wrong",
    [
        bundle.Parity(*(array[:0] for array in (PARITY.windows, PARITY.replicas, PARITY.confidence, PARITY.signals))),
        replace(PARITY, windows=PARITY.windows[:, 1:]),
        replace(PARITY, confidence=PARITY.confidence[:, None]),
        replace(PARITY, replicas=np.full_like(PARITY.replicas, np.nan)),
    ],
    ids=["no windows", "short windows", "shape", "NaN"],
)
def test_parity_must_be_recorded_with_this_policy(policy, tmp_path, wrong):
    with pytest.raises(BundleError, match=r"parity\.npz"):
        make(tmp_path / "out", policy, parity=wrong)


def test_a_folder_that_is_no_policy_is_named(tmp_path, policy):
    (tmp_path / "p").mkdir()
    with pytest.raises(BundleError, match=r"graph\.onnx is missing"):
        make(tmp_path / "out", tmp_path / "p")
    shutil.copy(policy / "policy.json", tmp_path / "p")
    (tmp_path / "p/graph.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match="does not load"):
        make(tmp_path / "out", tmp_path / "p")


def test_a_graph_with_weights_outside_its_file_is_refused(tmp_path, policy):
    """External weights would run unsigned."""
    folder = tmp_path / "p"
    folder.mkdir()
    shutil.copy(policy / "policy.json", folder)
    model = onnx.load(str(policy / "graph.onnx"))
    onnx.save_model(model, str(folder / "graph.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (folder / "w.bin").exists()
    with pytest.raises(BundleError, match="does not load"):
        make(tmp_path / "out", folder)


# ---------------------------------------------------------------- refusals when trusting one


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([*bundle.FILES, bundle.MANIFEST, bundle.SIGNATURE]), data=st.data())
def test_one_flipped_bit_anywhere_is_refused_and_its_file_named(signed, copy, name, data):
    original = (signed / name).read_bytes()
    position = data.draw(st.integers(0, len(original) * 8 - 1))
    changed = bytearray(original)
    changed[position // 8] ^= 1 << position % 8
    (copy / name).write_bytes(bytes(changed))
    try:
        with pytest.raises(BundleError) as error:
            bundle.verify(copy, KEY.public_key())
    finally:
        (copy / name).write_bytes(original)
    assert name in str(error.value)
    assert "take the bundle again" in str(error.value)


def test_every_bit_of_the_signature_file_counts(signed, copy):
    """Also those that hex leaves free, such as the case of its letters."""
    original = (signed / bundle.SIGNATURE).read_bytes()
    for position in range(len(original) * 8):
        changed = bytearray(original)
        changed[position // 8] ^= 1 << position % 8
        (copy / bundle.SIGNATURE).write_bytes(bytes(changed))
        with pytest.raises(BundleError, match=r"manifest\.sig"):
            bundle.verify(copy, KEY.public_key())


@pytest.mark.parametrize("name", [*bundle.FILES, bundle.MANIFEST, bundle.SIGNATURE])
def test_a_removed_file_is_named(copy, name):
    (copy / name).unlink()
    assert f"{name} is missing" in refused(copy)


@pytest.mark.parametrize("name", [*bundle.FILES, bundle.MANIFEST, bundle.SIGNATURE])
def test_a_cut_or_grown_file_is_named(copy, name):
    whole = (copy / name).read_bytes()
    for changed in (whole[:-1], whole + b"\n", b""):
        (copy / name).write_bytes(changed)
        assert name in refused(copy)


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "graph.onnx.bak"])
def test_an_added_file_is_named(copy, name):
    (copy / name).write_text("x")
    message = refused(copy)
    assert name in message
    assert "remove it" in message


def test_an_added_folder_is_named(copy):
    (copy / "more").mkdir()
    assert "more is not part" in refused(copy)


@pytest.mark.parametrize("name", [*bundle.FILES, bundle.MANIFEST, bundle.SIGNATURE])
def test_a_link_is_refused_even_to_the_right_bytes(copy, tmp_path, name):
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name} cannot be read: it is a link" in refused(copy)


def test_a_folder_or_pipe_in_place_of_a_file_is_refused(copy):
    (copy / "graph.onnx").unlink()
    (copy / "graph.onnx").mkdir()
    assert "not a regular file" in refused(copy)
    (copy / "graph.onnx").rmdir()
    os.mkfifo(copy / "graph.onnx")
    assert "not a regular file" in refused(copy)


def test_a_linked_bundle_is_refused(copy, tmp_path):
    (tmp_path / "link").symlink_to(copy)
    assert "not a link" in refused(tmp_path / "link")


def test_the_signature_of_another_bundle_does_not_fit(copy, policy, tmp_path):
    make(tmp_path / "other", policy, evidence=EVIDENCE | {"seeds": [9]})
    shutil.copy(tmp_path / "other" / bundle.SIGNATURE, copy)
    assert "manifest.sig does not fit manifest.json" in refused(copy)


def test_a_key_that_is_not_trusted_is_refused_with_the_remedy(copy):
    assert "public key of who promoted it" in refused(copy, OTHER_KEY)


def test_a_changed_file_with_a_mended_manifest_needs_the_key(copy):
    """Whoever lacks the key cannot make a hash fit."""
    (copy / "verdict.json").write_bytes(b"{}\n")
    said = json.loads((copy / bundle.MANIFEST).read_bytes())
    said["files"]["verdict.json"] = {"sha256": bundle._sha256(b"{}\n"), "size_bytes": 3}
    said["bundle_id"] = bundle._bundle_id({k: v for k, v in said.items() if k != "bundle_id"})
    (copy / bundle.MANIFEST).write_bytes(bundle._json(said, "manifest"))
    assert "does not fit" in refused(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "promote it again"),
        ({"decision": "refuse"}, "promote it again"),
        ({"surprise": 1}, "not a manifest"),
        ({"files": {}}, "promote it again"),
    ],
    ids=["format", "decision", "key", "files"],
)
def test_a_signed_manifest_of_another_kind_is_refused(copy, change, message):
    said = json.loads((copy / bundle.MANIFEST).read_bytes()) | change
    said["bundle_id"] = bundle._bundle_id({k: v for k, v in said.items() if k != "bundle_id"})
    sign(copy, bundle._json(said, "manifest"))
    assert message in refused(copy)


def test_the_bundle_id_is_the_digest_of_the_rest(copy):
    said = json.loads((copy / bundle.MANIFEST).read_bytes()) | {"bundle_id": "0" * 64}
    sign(copy, bundle._json(said, "manifest"))
    assert "bundle_id" in refused(copy)


def test_opening_replays_the_parity_vectors(copy):
    """A graph that was signed but answers otherwise on this machine is refused at load, not in production."""
    write_graph(copy / "graph.onnx", WEIGHTS * np.float32(1.001))
    said = json.loads((copy / bundle.MANIFEST).read_bytes())
    raw = (copy / "graph.onnx").read_bytes()
    said["files"]["graph.onnx"] = {"sha256": bundle._sha256(raw), "size_bytes": len(raw)}
    said["bundle_id"] = bundle._bundle_id({k: v for k, v in said.items() if k != "bundle_id"})
    sign(copy, bundle._json(said, "manifest"))
    bundle.verify(copy, KEY.public_key())
    with pytest.raises(BundleError, match="differs from the trained network"):
        bundle.open(copy, KEY.public_key())


def sign(folder, manifest):
    (folder / bundle.MANIFEST).write_bytes(manifest)
    (folder / bundle.SIGNATURE).write_bytes(KEY.sign(manifest).hex().encode() + b"\n")


# ---------------------------------------------------------------- keys and command line


def test_a_made_key_is_private_and_signs_what_its_public_key_verifies(tmp_path):
    path = tmp_path / "key.pem"
    made = bundle.generate_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    signature = bundle.load_private_key(path).sign(b"x")
    bundle.load_public_key(tmp_path / "key.pem.pub").verify(signature, b"x")
    assert signature == made.sign(b"x")


@pytest.mark.parametrize("taken", ["key.pem", "key.pem.pub"])
def test_a_key_is_never_overwritten(tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(BundleError, match="never overwritten"):
        bundle.generate_key(tmp_path / "key.pem")
    assert [p.name for p in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    bundle.generate_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(mode)
    with pytest.raises(BundleError, match="chmod 600"):
        bundle.load_private_key(tmp_path / "key.pem")


def test_other_keys_and_other_files_are_refused(tmp_path):
    path = tmp_path / "key.pem"
    path.touch(mode=0o600)
    with pytest.raises(BundleError, match="keygen"):
        bundle.load_private_key(path)
    with pytest.raises(BundleError, match=r"\.pub"):
        bundle.load_public_key(path)
    with pytest.raises(BundleError, match="keygen"):
        bundle.load_private_key(tmp_path / "none")
    curve = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        curve.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(BundleError, match="Ed25519"):
        bundle.load_private_key(path)
    path.write_bytes(
        curve.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(BundleError, match="Ed25519"):
        bundle.load_public_key(path)


def test_the_command_line_makes_keys_and_checks_bundles(policy, tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "agents.bundle", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(bundle.__file__).parents[1],
        )

    assert command("keygen", tmp_path / "key").returncode == 0
    again = command("keygen", tmp_path / "key")
    assert again.returncode == 1
    assert "never overwritten" in again.stderr
    make(tmp_path / "b", policy, key=bundle.load_private_key(tmp_path / "key"))
    good = command("verify", tmp_path / "b", "--key", tmp_path / "key.pub")
    assert (good.returncode, good.stderr) == (0, "")
    assert "tiny@3 is intact" in good.stdout
    (tmp_path / "b/verdict.json").write_bytes(base64.b64encode(b"other"))
    bad = command("verify", tmp_path / "b", "--key", tmp_path / "key.pub")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "verdict.json was changed" in bad.stderr
