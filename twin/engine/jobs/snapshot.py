"""A running twin as a file, and back: plain arrays, nothing that a later version could not read.

Only what changes is kept. The jobs, the machines and the scheduler are given again, and a fingerprint refuses others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from itertools import chain
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from twin.engine.jobs.checkpoint import Checkpoint
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import Workload
from twin.errors import SimulationError

FORMAT_VERSION = 2
_NOTE = "note:"


def save(twin: JobTwin, path: Path) -> None:
    """Write the twin's state to `path` (.npz); the file appears whole or not at all."""
    held = [(job, machine, count, len(dev)) for job, h in twin.held.items() for machine, count, dev in h]
    devices = [d for h in twin.held.values() for _, _, dev in h for d in dev]
    state: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "fingerprint": np.frombuffer(fingerprint(twin.workload, twin.machines, twin.outages), np.uint8),
        "clock": np.array([twin.now_s, twin._next]),
        "queue": _table(twin.queue, 2),
        "running": _table(twin.running, 2),
        "agenda": _table(twin._agenda, 4),
        "history": _table(twin.history, 5),
        "held": _table(held, 4).astype(np.int64),
        "devices": np.array(devices, dtype=np.int64),
        "closed": _table(twin._closed.items(), 2).astype(np.int64),
        "paces": _table(((job, *pace) for job, pace in twin._paces.items()), 6),
        "ended": np.array(twin.ended, dtype=np.int64),
        "rules": np.array(_rules(twin.scheduler)),
        "keeps_history": np.array(twin._keeps_history),
        "waits_for": twin.waits_for,
        **twin.columns,
        **{_NOTE + name: value for name, value in twin.notes.items()},
    }
    write(path, state)


def write(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to `path` (.npz); the file appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(
    path: Path, workload: Workload, machines: Machines, scheduler: Scheduler, outages: Sequence[Outage] = ()
) -> JobTwin:
    """The twin that was saved, ready to run on, perhaps under another scheduler; nobody observes or paces it.

    Raises:
        SimulationError: the file cannot be read, or was saved with other jobs, machines or outages.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            state = dict(file)
    except (OSError, ValueError, BadZipFile) as error:
        raise SimulationError(f"{path}: no saved twin can be read from it ({error})") from error
    if int(state.get("format_version", 0)) != FORMAT_VERSION:
        raise SimulationError(f"{path}: not of format {FORMAT_VERSION}; save the twin again with this version")
    if state["fingerprint"].tobytes() != fingerprint(workload, machines, outages):
        raise SimulationError(f"{path}: saved with other jobs, machines or outages than those given; give the same")
    kill, interval_s, cost_s = state["rules"].tolist()
    checkpoint = None if np.isnan(interval_s) else Checkpoint(interval_s, cost_s)
    # under the rules that planned the ends; those that are given are told afterwards, as to a fork
    planned = replace(scheduler, kill=bool(kill), checkpoint=checkpoint)
    twin = JobTwin(workload, machines, planned, outages=outages, history=bool(state["keeps_history"]))
    twin.now_s, twin._next = float(state["clock"][0]), int(state["clock"][1])
    twin.columns = {name: state[name] for name in twin.columns}
    twin.waits_for = state["waits_for"]
    twin.queue = _rows(state["queue"], (float, int))
    twin.running = _rows(state["running"], (float, int))
    twin._agenda = _rows(state["agenda"], (float, int, int, int))
    twin.history = _rows(state["history"], (int, int, int, float, float))
    twin.notes = {name.removeprefix(_NOTE): value for name, value in state.items() if name.startswith(_NOTE)}
    _hold(twin, state["held"].tolist(), state["devices"].tolist())
    twin._paces = {job: tuple(pace) for job, *pace in _rows(state["paces"], (int, float, float, float, float, bool))}
    twin.ended = state["ended"].tolist()
    twin._closed = dict(state["closed"].tolist())
    for machine, count in twin._closed.items():
        if count:
            twin.capacity.close(machine)
    twin._wire()
    twin._change_scheduler(scheduler)
    twin._wire()
    twin._go_on_at_full_pace()
    return twin


def _rules(scheduler: Scheduler) -> tuple[float, float, float]:
    """What the planned ends of running jobs depend on."""
    checkpoint = scheduler.checkpoint
    return (scheduler.kill, np.nan, np.nan) if checkpoint is None else (scheduler.kill, *astuple(checkpoint))


def _hold(twin: JobTwin, held: list[list[int]], devices: list[int]) -> None:
    """Let jobs hold again what they held, on the very same devices."""
    at = 0
    for job, machine, count, number in held:
        mine = tuple(devices[at : at + number])
        at += number
        twin.held[job] = (*twin.held.get(job, ()), (machine, count, mine))
        twin.capacity.hold(job, machine, count, mine)


def _rows(table: np.ndarray, types: Sequence[type]) -> list[Any]:
    """The rows of a table as tuples of plain numbers."""
    return list(zip(*(column.astype(kind).tolist() for column, kind in zip(table.T, types, strict=True)), strict=True))


def _table(rows: Iterable[tuple[float, ...]], width: int) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), np.float64).reshape(-1, width)


def fingerprint(workload: Workload, machines: Machines, outages: Sequence[Outage]) -> bytes:
    """16 bytes that differ where the jobs, the machines or the outages do."""
    h = hashlib.blake2b(digest_size=16)
    for column in (workload.submit_s, workload.request, workload.instances, workload.limit_s, workload.run_s):
        h.update(np.ascontiguousarray(column).tobytes())
    for column in (workload.cancel_s, workload.parents, workload.job_class, workload.fits_kind, machines.capacity):
        h.update(np.ascontiguousarray(column).tobytes())
    for column in (*workload.children, workload.priority, workload.deadline_s, workload.user, workload.group):
        h.update(np.ascontiguousarray(column).tobytes())
    h.update(b"" if workload.latency_s is None else np.ascontiguousarray(workload.latency_s).tobytes())
    h.update(repr((machines.names, tuple(outages), workload.users, workload.groups)).encode())
    h.update("\0".join(workload.queue.fill_null("")).encode())
    return h.digest()
