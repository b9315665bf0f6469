"""What every verb shares: one Hydra entry, one place where errors become a message and an exit code.

Exit codes: 0 done, 1 error, 2 usage, 3 gate refused, 4 partly failed.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import display, present, schema, sweep
from experiments.display import Display
from twin.errors import UsageError, WorkbenchError

Task = Callable[[DictConfig, Display], int]

DONE, ERROR, USAGE, REFUSED, PARTLY = range(5)


def main(verb: str, task: Task) -> None:
    """Run `task` under Hydra with the primary config `conf/<verb>.yaml` and exit with its code.

    A `WorkbenchError` or a wrong configuration ends in one message on stderr; anything else is a defect and shows
    its traceback. With HYDRA_FULL_ERROR=1 in the environment every error shows it.
    """
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise what it finds, so that it is worded here
    schema.register()
    codes: list[int] = []

    def job(cfg: DictConfig) -> int:
        code = _guarded(task, cfg, full)
        codes.append(code)
        return code

    try:
        hydra.main(version_base="1.3", config_path="../conf", config_name=verb)(job)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        if full:
            raise
        sys.stderr.write(f"{_worded(error)}\n")
        sys.exit(USAGE)
    except OSError as error:
        if full:
            raise
        sys.stderr.write(f"cannot write the output folder: {error}; choose another with out=...\n")
        sys.exit(USAGE)
    codes = codes or _noted_codes()  # a launcher's jobs ran in other processes
    if not codes:  # --help, --cfg, --info
        sys.exit(DONE)
    sys.exit(codes[0] if len(codes) == 1 else _worst(codes))


def _guarded(task: Task, cfg: DictConfig, full: bool) -> int:
    try:
        code = task(cfg, display.make(cfg.display))
        _note(cfg, code, "")
        return code
    except (WorkbenchError, OmegaConfBaseException, HydraException, OSError, ModuleNotFoundError) as error:
        cause = _foreseen(error)
        if full or cause is None:
            raise
        sys.stderr.write(f"{type(cause).__name__}: {_worded(cause)}\n")
        code = _exit_code(cause)
        _note(cfg, code, f"{type(cause).__name__}: {cause}")
        return code
    finally:
        _tidy(Path(HydraConfig.get().runtime.output_dir))


def _foreseen(error: BaseException) -> Exception | None:
    """The foreseen error behind this one: Hydra wraps what a constructor raises, defects too."""
    cause: BaseException = error
    while not isinstance(cause, WorkbenchError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ModuleNotFoundError):
        extras = "pip install -e '.[twin,learn,reports]'"
        return WorkbenchError(f"{cause.name} is not installed; it belongs to an extra: {extras}")
    foreseen = (WorkbenchError, HydraException, OmegaConfBaseException, OSError)
    return cause if isinstance(cause, foreseen) else None


def _exit_code(error: Exception) -> int:
    if isinstance(error, WorkbenchError):
        return error.exit_code
    return ERROR if isinstance(error, OSError) else USAGE


def _note(cfg: DictConfig, code: int, error: str) -> None:
    """In a sweep, leave a note of how the job ended, for the sweep table and for whoever waits for all jobs."""
    config = HydraConfig.get()
    if config.mode == RunMode.MULTIRUN:
        folder = str(Path(cfg.out).absolute())
        note = {"overrides": list(config.overrides.task), "exit_code": code, "error": error, "folder": folder}
        sweep.note(Path(config.sweep.dir), config.job.num, note)


def _noted_codes() -> list[int]:
    """The exit codes that the jobs of the finished sweep noted; none when there was no sweep."""
    folder = Path(HydraConfig.get().sweep.dir) if HydraConfig.initialized() else None
    return [note["exit_code"] for _, note in sweep.notes(folder)] if folder else []


def _tidy(folder: Path) -> None:
    """Take away the folders that Hydra made, as far as the job left nothing in them."""
    for each in (folder, folder.parent, folder.parent.parent):
        if not each.is_dir() or each in (Path.cwd(), *Path.cwd().parents) or any(each.iterdir()):
            return
        each.rmdir()


def _worst(codes: list[int]) -> int:
    if not any(codes):
        return DONE
    return PARTLY if any(code == DONE for code in codes) else max(codes)


def _worded(error: BaseException) -> str:
    """The message, with the nearest known key when a key was unknown: Hydra 1.3 only says "not in struct"."""
    text = str(error).strip()
    if isinstance(error.__cause__, OmegaConfBaseException) and str(error.__cause__) not in text:
        text += f"\n{error.__cause__}"
    if "is not a ListConfig" in text:
        text += "\nIt takes a list: write key=[a,b]."
    unknown = re.search(r"Key '([\w.@]+)' (?:is )?not in", text)
    if unknown:
        known = [str(key) for key in _known_keys()]
        near = difflib.get_close_matches(unknown.group(1), known, n=3)
        text += f"\nDid you mean {' or '.join(map(repr, near))}?" if near else ""
        text += "\nShow all keys with --cfg job."
    return text


def _known_keys() -> list[str]:
    keys: list[str] = []
    for config in schema.CONFIGS.values():
        keys += list(OmegaConf.structured(config).keys())
    return sorted(set(keys))


def conclude(folder: Path, cfg: DictConfig, display: Display, failed: Sequence[str]) -> int:
    """Say what failed, then end as every verb ends; returns 4 when something failed, else 0."""
    for text in failed:
        display.line(f"failed: {text}")
    present.finish(folder, cfg, display)
    return PARTLY if failed else DONE


def command(verb: str) -> list[str]:
    """The command line that repeats this job."""
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return ["python", "-m", f"experiments.{verb}", *overrides]


def overrides() -> list[str]:
    """This job's overrides, without the place of its output."""
    given = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return [text for text in given if not text.startswith("out=")]


def choice(group: str) -> str:
    """The option that was chosen for a configuration group."""
    return str(HydraConfig.get().runtime.choices.get(group, group)) if HydraConfig.initialized() else group


def require(path: str | None, key: str, how: str) -> Path:
    """The path given under a configuration key; raises UsageError saying how to get one."""
    if not path:
        raise UsageError(f"{key} is not set; {how}")
    found = Path(path)
    if not found.exists():
        raise UsageError(f"{key}={path} does not exist; {how}")
    return found
