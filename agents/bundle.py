"""A promotable policy as a folder that cannot be changed unnoticed.

    graph.onnx      the policy, normalisation included; policy.json says how to feed it (`agents.policy`)
    parity.npz      recorded windows and what the trained network answered; replayed at every load
    verdict.json    why it may be promoted
    manifest.json   what it is, what it was trained and judged on, within which limits, and the SHA-256 of each file
    manifest.sig    Ed25519 signature over the bytes of manifest.json, in hex

The signature says that the holder of the key promoted exactly these bytes on this evidence.

    python -m agents.bundle keygen PATH
    python -m agents.bundle verify FOLDER --key PUB
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from agents.policy import GraphPolicy, Infer, PolicySpec, Window, graph_inference
from twin.errors import BundleError, PolicyError
from twin.types import Limits, RateLimit

FORMAT_VERSION = 1
FILES = ("graph.onnx", "policy.json", "parity.npz", "verdict.json")
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
EVIDENCE = ("trace_digest", "seeds", "windows_s")
PARITY_TOLERANCE = 1e-5

_AGAIN = "take the bundle again from where it was promoted"
_MAX_MANIFEST_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Parity:
    """What the trained network answered to recorded windows, to hold its exported graph against.

    `windows` [n, steps, columns], `replicas` [n, services], `confidence` [n], `signals` [n, signals]; all float32.
    """

    windows: NDArray[np.float32]
    replicas: NDArray[np.float32]
    confidence: NDArray[np.float32]
    signals: NDArray[np.float32]

    @classmethod
    def record(cls, infer: Infer, windows: Sequence[Window] | NDArray[np.float32]) -> Parity:
        """The answers of `infer`, the trained network, to each of `windows`."""
        said = [infer(window) for window in windows]
        return cls(
            np.asarray(windows, np.float32),
            np.array([s.replicas for s in said], np.float32),
            np.array([s.confidence for s in said], np.float32),
            np.array([s.signals for s in said], np.float32),
        )


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file of the bundle must be."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle is: identity, what goes in and comes out, limits, evidence, and its files.

    `bundle_id` is the SHA-256 of all the rest. The policy reads `steps` observations of `columns`, one every
    `interval_s` seconds, and sets the `action_kind` of each of `targets`. `evidence` tells at least the trained
    trace's digest, the seeds and the windows of time; `decision` and `candidate` are the verdict's.
    """

    format_version: int
    bundle_id: str
    policy: str
    version: str
    columns: tuple[str, ...]
    steps: int
    interval_s: float
    action_kind: str
    targets: tuple[str, ...]
    limits: Limits
    evidence: dict[str, Any]
    decision: str
    candidate: str
    files: dict[str, FileEntry]


# ---------------------------------------------------------------- making one


def create(
    out: Path,
    policy: Path,
    *,
    verdict: Mapping[str, Any],
    evidence: Mapping[str, Any],
    limits: Limits,
    parity: Parity,
    key: Ed25519PrivateKey,
) -> Manifest:
    """The manifest of the bundle made in the new folder `out`, which appears whole or not at all.

    Equal arguments make equal bytes.

    Args:
        out: must not exist.
        policy: folder with `graph.onnx` and `policy.json`.
        verdict: the gate's, with "decision", "candidate" and the "graph_sha256" that it is on.
        evidence: "trace_digest", "seeds", "windows_s", and whatever else is to be known.
        limits: within which the policy was judged and may act.
        parity: the trained network's own answers.
        key: who promotes.

    Raises:
        BundleError: the verdict is not "pass", something is missing, or the graph answers otherwise than the network.
    """
    if verdict.get("decision") != "pass":
        raise BundleError(
            f"{out}: the verdict is {verdict.get('decision')!r}, not 'pass': only a passed policy becomes a bundle"
        )
    if not isinstance(verdict.get("candidate"), str):
        raise BundleError(f"{out}: the verdict names no candidate; give the verdict that the gate wrote")
    missing = [name for name in EVIDENCE if name not in evidence]
    if missing:
        raise BundleError(f"{out}: the evidence lacks {missing[0]!r}; it must tell {list(EVIDENCE)}")
    if out.exists() or out.is_symlink():
        raise BundleError(f"{out} exists; name a new folder: a bundle is never changed")
    content = {name: _read(policy / name) for name in ("graph.onnx", "policy.json")}
    judged = verdict.get("graph_sha256")
    if judged != _sha256(content["graph.onnx"]):
        raise BundleError(f"{out}: the verdict is on graph {judged}, not on {policy / 'graph.onnx'}; judge this one")
    content["verdict.json"] = _json(dict(verdict), "verdict.json")
    content["parity.npz"] = _npz(parity)
    spec = _load(content, policy).spec  # the graph is held against the network before anything is signed
    manifest = _manifest(spec, verdict, evidence, limits, content)
    content[MANIFEST] = _json(asdict(manifest), MANIFEST)
    content[SIGNATURE] = _hex_line(key.sign(content[MANIFEST]))
    _write_whole(out, content)
    return manifest


def _manifest(
    spec: PolicySpec,
    verdict: Mapping[str, Any],
    evidence: Mapping[str, Any],
    limits: Limits,
    content: Mapping[str, bytes],
) -> Manifest:
    said = {
        "format_version": FORMAT_VERSION,
        "policy": spec.name,
        "version": spec.version,
        "columns": spec.columns,
        "steps": spec.steps,
        "interval_s": spec.interval_s,
        "action_kind": "replicas",
        "targets": spec.services,
        "limits": asdict(limits),
        "evidence": dict(evidence),
        "decision": verdict["decision"],
        "candidate": verdict["candidate"],
        "files": {name: {"sha256": _sha256(content[name]), "size_bytes": len(content[name])} for name in FILES},
    }
    return _parse(_json(said | {"bundle_id": _bundle_id(said)}, MANIFEST), Path(MANIFEST))


def _write_whole(out: Path, content: Mapping[str, bytes]) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            folder = Path(scratch) / out.name
            folder.mkdir()
            for name, data in content.items():
                with (folder / name).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(folder, out)
    except OSError as error:
        raise BundleError(f"{out}: cannot be written: {error}; give a new folder in a place of yours") from error


# ---------------------------------------------------------------- trusting one


def verify(folder: Path, trusted: Ed25519PublicKey) -> Manifest:
    """The manifest of a bundle of which every byte is what the holder of the trusted key signed.

    Raises:
        BundleError: naming the file that is missing, changed, not listed or a link, or the signature.
    """
    return _verified(folder, trusted)[0]


def open(folder: Path, trusted: Ed25519PublicKey) -> tuple[GraphPolicy, Manifest]:  # noqa: A001 - bundle.open reads well
    """The policy of a verified bundle, ready to run, and its manifest.

    What runs are the very bytes that were verified, after they gave the trained network's answers once more.

    Raises:
        BundleError: as `verify`, or the graph does not load or answers otherwise than the trained network.
    """
    manifest, content = _verified(folder, trusted)
    return _load(content, folder), manifest


def _verified(folder: Path, trusted: Ed25519PublicKey) -> tuple[Manifest, dict[str, bytes]]:
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; name the bundle itself, not a link or a file of it")
    raw = _read(folder / MANIFEST, _MAX_MANIFEST_BYTES)
    _check_signature(folder, raw, trusted)
    manifest = _parse(raw, folder / MANIFEST)
    content = {name: _checked(folder / name, manifest.files[name]) for name in FILES}
    unlisted = sorted({path.name for path in folder.iterdir()} - {*FILES, MANIFEST, SIGNATURE})
    if unlisted:
        raise BundleError(f"{folder / unlisted[0]} is not part of the bundle; remove it, or {_AGAIN}")
    return manifest, content


def _check_signature(folder: Path, manifest: bytes, trusted: Ed25519PublicKey) -> None:
    path = folder / SIGNATURE
    raw = _read(path, _MAX_MANIFEST_BYTES)
    try:
        signature = bytes.fromhex(raw.decode("ascii").removesuffix("\n"))
    except ValueError:
        signature = b""
    if raw != _hex_line(signature):  # one way to write it only: no byte of the file is free
        raise BundleError(f"{path} is not a signature in hex; {_AGAIN}")
    try:
        trusted.verify(signature, manifest)
    except InvalidSignature:
        raise BundleError(
            f"{path} does not fit {MANIFEST}: one of the two was changed, or another key than the trusted one signed "
            f"it; {_AGAIN}, or verify with the public key of who promoted it"
        ) from None


def _checked(path: Path, entry: FileEntry) -> bytes:
    data = _read(path, entry.size_bytes)
    if len(data) != entry.size_bytes or _sha256(data) != entry.sha256:
        raise BundleError(f"{path} was changed: it is not the file that was signed; {_AGAIN}")
    return data


def _parse(raw: bytes, where: Path) -> Manifest:
    """The manifest in signed bytes; raises BundleError for another format or keys that do not fit."""
    try:
        said = json.loads(raw)
        if said["format_version"] != FORMAT_VERSION:
            raise BundleError(
                f"{where}: bundle format {said['format_version']}, this code reads {FORMAT_VERSION}; promote it again"
            )
        if said["bundle_id"] != _bundle_id({k: v for k, v in said.items() if k != "bundle_id"}):
            raise BundleError(f"{where}: bundle_id is not the digest of the rest; {_AGAIN}")
        limits = said["limits"]
        rates = {name: RateLimit(**each) for name, each in limits.items() if isinstance(each, dict)}
        manifest = Manifest(
            **said
            | {
                "columns": tuple(said["columns"]),
                "targets": tuple(said["targets"]),
                "limits": Limits(**limits | rates),
                "files": {name: FileEntry(**said["files"][name]) for name in said["files"]},
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{where}: not a manifest: {error!r}; {_AGAIN}") from error
    if manifest.decision != "pass" or set(manifest.files) != set(FILES):
        raise BundleError(f"{where}: decision {manifest.decision!r}, files {sorted(manifest.files)}; promote it again")
    return manifest


# ---------------------------------------------------------------- running one


def _load(content: Mapping[str, bytes], source: Path) -> GraphPolicy:
    """The policy in these bytes; a private folder keeps what runs equal to what was verified."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        folder = Path(scratch)
        for name in ("graph.onnx", "policy.json"):
            (folder / name).write_bytes(content[name])
        try:
            spec = PolicySpec.read(folder)
            infer = graph_inference(folder / "graph.onnx", spec)
        except PolicyError as error:
            raise BundleError(f"{source}: the policy does not load: {error}; export and promote it again") from error
    _replay(infer, spec, content["parity.npz"], source / "parity.npz")
    return GraphPolicy(spec, infer)


def _replay(infer: Infer, spec: PolicySpec, raw: bytes, where: Path) -> None:
    """Raise BundleError unless the graph gives each recorded answer to 1e-5 (relative above 1)."""
    with np.load(BytesIO(raw), allow_pickle=False) as arrays:
        recorded = Parity(arrays["windows"], arrays["replicas"], arrays["confidence"], arrays["signals"])
    count = len(recorded.windows)
    shapes = {
        "windows": (count, spec.steps, len(spec.columns)),
        "replicas": (count, len(spec.services)),
        "confidence": (count,),
        "signals": (count, len(spec.signals)),
    }
    for name, shape in shapes.items():
        if getattr(recorded, name).shape != shape or count == 0:
            raise BundleError(
                f"{where}: {name} has shape {getattr(recorded, name).shape}, {spec.name} needs {shape} and at least "
                "one window; record the parity with this policy"
            )
    for index, window in enumerate(recorded.windows):
        said = infer(window)
        error = max(
            _error(said.replicas, recorded.replicas[index]),
            _error(np.float32(said.confidence), recorded.confidence[index]),
            _error(said.signals, recorded.signals[index]),
        )
        if not error <= PARITY_TOLERANCE:  # NaN is no parity
            raise BundleError(
                f"{where}: on window {index} the graph differs from the trained network by {error:.3g}, more than "
                f"{PARITY_TOLERANCE:g}; export it again, or look for another version of onnxruntime"
            )


def _error(said: NDArray[np.float32] | np.float32, expected: NDArray[np.float32] | np.float32) -> float:
    if np.shape(said) != np.shape(expected):
        return float("nan")
    difference = np.abs(np.asarray(said, np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return float(np.max(difference, initial=0.0))


# ---------------------------------------------------------------- keys


def generate_key(path: Path) -> Ed25519PrivateKey:
    """A new private key, stored at `path` (PKCS8 PEM, readable by the owner only), its public key at `path`.pub.

    Raises BundleError when either file exists or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = path.with_name(path.name + ".pub")
    for taken in (path, beside):
        if taken.exists() or taken.is_symlink():
            raise BundleError(f"{taken} exists and keys are never overwritten; choose another name")
    _write_new(path, private, 0o600)
    _write_new(beside, public, 0o644)
    return key


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key at `path`; raises BundleError when others may read it or it is not an Ed25519 key."""
    if _status(path).st_mode & 0o077:
        raise BundleError(f"{path} can be read by others; run chmod 600 on it, and make a new key if they may have")
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{path}: not an unencrypted private key in PEM: {error}; make one with keygen") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{path}: not an Ed25519 key; make one with python -m agents.bundle keygen")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key at `path`; raises BundleError when it is not an Ed25519 key in PEM."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{path}: not a public key in PEM: {error}; give the .pub file that keygen wrote") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{path}: not an Ed25519 key; give the .pub file that keygen wrote")
    return key


# ---------------------------------------------------------------- bytes


def _read(path: Path, max_bytes: int | None = None) -> bytes:
    """The bytes of a regular file, at most one more than `max_bytes`; raises BundleError for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BundleError(f"{path} is not a regular file; {_AGAIN}")
        with os.fdopen(descriptor, "rb") as file:
            return file.read(-1 if max_bytes is None else max_bytes + 1)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; {_AGAIN}") from None
    except OSError as error:
        hint = "it is a link" if path.is_symlink() else str(error)
        raise BundleError(f"{path} cannot be read: {hint}; {_AGAIN}") from error


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}; make a key with python -m agents.bundle keygen") from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error}; choose another name") from error


def _npz(parity: Parity) -> bytes:
    buffer = BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        windows=np.asarray(parity.windows, np.float32),
        replicas=np.asarray(parity.replicas, np.float32),
        confidence=np.asarray(parity.confidence, np.float32),
        signals=np.asarray(parity.signals, np.float32),
    )
    return buffer.getvalue()


def _json(value: dict[str, Any], name: str) -> bytes:
    try:
        return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"{name}: cannot be written as JSON: {error}; give plain values, None for unknown") from error


def _bundle_id(said: dict[str, Any]) -> str:
    return _sha256(_json(said, MANIFEST))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hex_line(data: bytes) -> bytes:
    return data.hex().encode("ascii") + b"\n"


# ---------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of `keygen PATH` or `verify FOLDER --key PUB`: 0 when it holds, 1 when it does not."""
    parser = argparse.ArgumentParser(prog="python -m agents.bundle", description="Keys and checks of policy bundles.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    keygen = verbs.add_parser("keygen", help="make a signing key and its public key")
    keygen.add_argument("path", type=Path, help="new file of the private key; the public key goes to PATH.pub")
    check = verbs.add_parser("verify", help="check signature and files of a bundle")
    check.add_argument("folder", type=Path)
    check.add_argument("--key", type=Path, required=True, help="public key of who promoted it")
    given = parser.parse_args(arguments)
    try:
        if given.verb == "keygen":
            generate_key(given.path)
            said = f"private key {given.path}, public key {given.path}.pub"
        else:
            manifest = verify(given.folder, load_public_key(given.key))
            said = f"{given.folder}: bundle {manifest.bundle_id[:16]} of {manifest.policy}@{manifest.version} is intact"
    except BundleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
