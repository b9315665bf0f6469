"""The audit chain: append-only JSON lines, each carrying the hash of the one before it.

A record is on the disk before its author goes on (`fsync`), so that what was intended is known even when the
process dies while it acts: an "intent" without its "outcome" is exactly such a death. A chain shows changed,
removed and reordered records; that the *end* was cut off shows only against a head kept elsewhere (`verify`'s
`head`; every session report holds one).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self, get_args

from twin.errors import LedgerError

Kind = Literal["start", "intent", "outcome", "decision", "observation-lost", "note", "stop"]
Clock = Callable[[], datetime]

KINDS: tuple[str, ...] = get_args(Kind)
GENESIS = "0" * 64
NO_OUTCOME = "intent without outcome"
TORN = "torn record moved aside"


def wall_clock() -> datetime:
    """The time of day now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the chain: `time` is wall-clock ISO 8601, `previous` and `hash` are SHA-256 in hex."""

    seq: int
    time: str
    kind: str
    body: dict[str, Any]
    previous: str
    hash: str

    def line(self) -> bytes:
        """The record as it is stored, newline included."""
        return _canonical(asdict(self)) + b"\n"


def records(path: Path) -> Iterator[Record]:
    """The records of a chain, each checked against the one before; raises LedgerError naming the line."""
    previous, seq = GENESIS, 0
    for seq, line in enumerate(_lines(path), start=1):
        where = f"{path}: line {seq}"
        if not line.endswith(b"\n"):
            raise LedgerError(f"{where} is torn (no line end); Ledger.open moves it aside and goes on")
        record = _parse(line, where)
        if record.seq != seq or record.previous != previous:
            raise LedgerError(
                f"{where} does not follow the line before it (seq {record.seq}): records were removed, added or "
                "reordered; keep the file as evidence and start a new ledger"
            )
        previous = record.hash
        yield record


def verify(path: Path, *, head: str | None = None) -> int:
    """The number of records of a chain that holds from the first to the last line.

    Args:
        path: the ledger.
        head: the hash of a record that must be part of it, as a session report keeps it; without it, lines cut
            off at the end go unnoticed.

    Raises:
        LedgerError: naming the first line that was changed, or the head that is missing.
    """
    count, found = 0, head is None
    for record in records(path):
        count += 1
        found = found or record.hash == head
    if not found:
        raise LedgerError(f"{path}: no record with the hash {head}; lines after {count} were cut off, or it is another")
    return count


class Ledger:
    """The one writer of an audit chain; a context manager. Open with `Ledger.open`."""

    def __init__(self, path: Path, descriptor: int, clock: Clock) -> None:
        """Take over an open and locked file; `open` does."""
        self.path = path
        self._descriptor = descriptor
        self._clock = clock
        self._turn = Lock()
        self._size = 0
        self.recovered: tuple[dict[str, Any], ...] = ()  # what `open` found and noted
        self.count = 0
        self.head = GENESIS

    @classmethod
    def open(cls, path: str | Path, clock: Clock = wall_clock) -> Ledger:
        """The ledger at `path`, new or continued, locked for this writer.

        A torn last line (the process died while writing) is moved to a file of its own beside the ledger, and
        intents that never got an outcome are listed; both become a "note" in the chain.

        Raises:
            LedgerError: another writer holds it, it cannot be written, or its chain does not verify.
        """
        path = Path(path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(
                f"{path}: cannot be opened for writing: {error}; give a path in a folder of yours"
            ) from error
        ledger = cls(path, descriptor, clock)
        try:
            ledger._resume()
        except BaseException:
            ledger.close()
            raise
        return ledger

    def append(self, kind: Kind, body: Mapping[str, Any]) -> Record:
        """The record written and on the disk.

        Args:
            kind: one of `KINDS`; the body of an "intent" and of its "outcome" share a "key".
            body: what JSON can hold; unknown numbers are None, never NaN.

        Raises:
            LedgerError: unknown kind, a body that JSON cannot hold or without its key, a closed ledger, a file that
                somebody else changed, or a failed write; after a failed write the ledger stays closed.
        """
        if kind not in KINDS or (kind in ("intent", "outcome") and not isinstance(body.get("key"), str)):
            raise LedgerError(
                f"{self.path}: no record kind {kind!r}, or one without its key; known: {list(KINDS)}, and the body of "
                "an intent or outcome needs the text 'key'"
            )
        with self._turn:
            if self._descriptor < 0:
                raise LedgerError(f"{self.path}: the ledger is closed; open it again to go on")
            record = _record(self.count + 1, self._clock(), kind, body, self.head, str(self.path))
            self._write(record.line())
            self.count, self.head = record.seq, record.hash
        return record

    @property
    def closed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._descriptor < 0

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)  # gives the lock back, too
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _resume(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerError(f"{self.path}: another session writes this ledger; end it or use another file") from error
        self._cut_torn_tail()
        unanswered: dict[str, int] = {}
        for record in records(self.path):
            self.count, self.head = record.seq, record.hash
            _follow(unanswered, record)
        self._size = os.fstat(self._descriptor).st_size
        if self.count == 0:
            _sync_folder(self.path)
        notes = _torn_parts(self.path, self._size)
        if unanswered:
            notes.append({"event": NO_OUTCOME, "intents": unanswered})
        for note in notes:
            self.append("note", note)
        self.recovered = tuple(notes)

    def _cut_torn_tail(self) -> None:
        """Move what follows the last line end to a file named after its offset."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        torn = content[whole:]
        if not torn:
            return
        aside = self.path.with_name(f"{_torn_prefix(self.path, whole)}{hashlib.sha256(torn).hexdigest()[:16]}")
        with aside.open("wb") as file:
            file.write(torn)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self.path)
        os.ftruncate(self._descriptor, whole)
        os.fsync(self._descriptor)

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        if size != self._size:
            self.close()
            raise LedgerError(f"{self.path}: {size} bytes where {self._size} were written: somebody else changed it")
        try:
            written = os.write(self._descriptor, line)
            os.fsync(self._descriptor)
        except OSError as error:
            self.close()
            raise LedgerError(f"{self.path}: cannot be written: {error}; nothing may be done unrecorded") from error
        if written != len(line):
            self.close()
            raise LedgerError(
                f"{self.path}: only {written} of {len(line)} bytes were written; free space and reopen it"
            )
        self._size = size + written


def _record(seq: int, now: datetime, kind: str, body: Mapping[str, Any], previous: str, where: str) -> Record:
    try:
        # what is hashed is what a reader will get back: tuples have become lists, keys strings
        plain = json.loads(_canonical(dict(body)))
        time = now.astimezone(UTC).isoformat(timespec="microseconds")
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"{where}: the body of this {kind!r} record is not JSON: {error}; NaN must be None"
        ) from error
    return Record(seq, time, kind, plain, previous, _digest(seq, time, kind, plain, previous))


def _digest(seq: int, time: str, kind: str, body: dict[str, Any], previous: str) -> str:
    hashed = {"seq": seq, "time": time, "kind": kind, "body": body, "previous": previous}
    return hashlib.sha256(_canonical(hashed)).hexdigest()


def _parse(line: bytes, where: str) -> Record:
    try:
        record = Record(**json.loads(line))
        intact = record.line() == line and record.hash == _digest(
            record.seq, record.time, record.kind, record.body, record.previous
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise LedgerError(f"{where} is not a record: {error}; keep the file as evidence, start a new ledger") from error
    if not intact:
        raise LedgerError(f"{where} was changed: its hash does not fit; keep the file as evidence, start a new ledger")
    return record


def _follow(unanswered: dict[str, int], record: Record) -> None:
    """Keep `unanswered` (key -> seq) to the intents that have neither outcome nor note so far."""
    if record.kind == "intent":
        unanswered[str(record.body.get("key"))] = record.seq
    elif record.kind == "outcome":
        unanswered.pop(str(record.body.get("key")), None)
    elif record.kind == "note" and record.body.get("event") == NO_OUTCOME:
        unanswered.clear()


def _torn_prefix(path: Path, offset: int) -> str:
    return f"{path.name}.torn-{offset}-"


def _torn_parts(path: Path, offset: int) -> list[dict[str, Any]]:
    """Notes on what was cut off at `offset`: found by name, so that a crash before the note loses nothing."""
    parts = sorted(p for p in path.parent.iterdir() if p.name.startswith(_torn_prefix(path, offset)))
    return [
        {"event": TORN, "file": part.name, "sha256": hashlib.sha256(part.read_bytes()).hexdigest()} for part in parts
    ]


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read: {error}; name the ledger of a session") from error


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sync_folder(path: Path) -> None:
    """Make the name of a new file as durable as its content."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
