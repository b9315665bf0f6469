"""`python -m experiments.opponents FOLDER`: all autoscalers on all recordings; docs/opponents.md says what they did.

Two suites, each a benchmark per recording: `opponents` scale replicas on a pool that sizes itself, `node_opponents`
buy nodes beside default HPA. What a fixed number needs to know is taken from the time before the one that judges.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from experiments import benchmark, cell, docs, opponents_page, schema
from experiments.display import Display, Plain, Silent
from experiments.opponents_page import SUITES
from experiments.rundir import RunFolder
from experiments.study import positive
from twin.engine.traffic import service_s
from twin.errors import UsageError, WorkbenchError

RECORDINGS = {  # experiment -> the folder it is read from; "" for those that are shipped
    "google2019": "",
    "alibaba2018": "",
    "azure_v2": "",
    "worldcup98": "worldcup98",
    "nasa": "nasa-http-1995",
    "azure_functions": "azure-functions-2019",
    "azure_llm": "azure-llm-2023",
}
PAGE = "docs/opponents.md"
FULL = 0.8
"""Share of what a replica can serve that fixed numbers plan with: the target of default HPA."""
SURGE = 1.6
"""The fixed nodes of the baseline hold so many times the highest demand: as much as `demand_surge` adds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not there yet and write the page; 0, 4 when some runs failed, or the code of what went wrong."""
    given = parser().parse_args(arguments)
    display, failed = Plain(), []
    schema.register()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            for suite, recording in ((suite, recording) for suite in given.suites for recording in given.recordings):
                overrides = described(suite, recording, given)
                if overrides is None:
                    display.line(f"{recording}: skipped, {given.folder / RECORDINGS[recording]} is not there")
                else:
                    failed += compared(overrides, given.out / f"{suite}-{recording}", given.workers, display)
        opponents_page.write(
            given.page, given.out, tuple(RECORDINGS), _typed(sys.argv[1:] if arguments is None else arguments)
        )
    except WorkbenchError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    display.line("\n".join([*(f"failed: {text}" for text in failed), str(given.page)]))
    return 4 if failed else 0


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    found = argparse.ArgumentParser(prog="python -m experiments.opponents", description=(__doc__ or "").split(": ")[1])
    found.add_argument("folder", type=Path, metavar="FOLDER", help="where the recordings lie, each in its folder")
    found.add_argument("--out", type=Path, default=Path("runs/opponents"), help="where the run folders go")
    found.add_argument("--page", type=Path, default=docs.ROOT / PAGE, help="the page whose results are replaced")
    found.add_argument("--suites", nargs="+", choices=SUITES, default=tuple(SUITES))
    found.add_argument("--recordings", nargs="+", choices=RECORDINGS, default=tuple(RECORDINGS))
    found.add_argument("--set", nargs="+", default=(), metavar="KEY=VALUE", help="overrides of every benchmark")
    found.add_argument("--workers", type=positive, default=2)
    return found


def _typed(arguments: Sequence[str]) -> str:
    """The command as it would be typed, without the places of this machine."""
    given = parser().parse_args(arguments)
    places = {str(given.folder): "FOLDER", str(given.out): "OUT", str(given.page): "PAGE"}
    return shlex.join(["python", "-m", "experiments.opponents", *(places.get(word, word) for word in arguments)])


# ---------------------------------------------------------------- the runs


def described(suite: str, recording: str, given: argparse.Namespace) -> list[str] | None:
    """The overrides of `experiments.benchmark` for a suite on a recording; None where the recording is not there."""
    overrides = [f"experiment=[{suite}{'' if recording == 'google2019' else f',{recording}'}]", *given.set]
    if RECORDINGS[recording]:
        if not (given.folder / RECORDINGS[recording]).exists():
            return None
        overrides.append(f"trace.path={given.folder / RECORDINGS[recording]}")
    return [*overrides, *sized(compose("benchmark", overrides))]


def sized(cfg: DictConfig) -> list[str]:
    """The numbers that the configuration fixes, as overrides, sized for the demand before the time that judges."""
    trace, service = cell.read_trace(cfg.trace), cell.build(cfg.cluster).service("cell")
    before = trace.between(0.0, cell.build(cfg.split).held_out_from_s(trace))
    rates_rps = before.demand.filter(service=service.series)["value"] * service.unit_rps
    full_rps = FULL * service.replica_rps
    needs = (math.ceil(float(rate) / full_rps) for rate in (rates_rps.mean(), rates_rps.max()))
    usual, most = (min(need, service.max_replicas) for need in needs)
    served_s = service_s(before.requests, service) if before.requests.height else [service.service_time_s]
    found = {
        "cluster.services.cell.replicas": usual,
        "controllers.static.replicas.cell": most,
        "controllers.keda.triggers.0.threshold": f"{full_rps:.4g}",
        "controllers.aimd.threshold": f"{1.25 * np.quantile(served_s, 0.95):.4g}",
        "controllers.seasonal.replica_rps": f"{service.replica_rps:.4g}",
        "controllers.vpa.controllers.replicas.replicas.cell": most,
    }
    if "large" in cfg.cluster.pools:
        pool = cfg.cluster.pools.large
        nodes = math.ceil(SURGE * most / (pool.cpu_cores // service.cpu_cores))
        found["cluster.pools.large.nodes"] = min(nodes, pool.max_nodes)
    return [f"{key}={value}" for key, value in found.items() if OmegaConf.select(cfg, key) is not None]


def compared(overrides: list[str], out: Path, workers: int, display: Display) -> list[str]:
    """Run the benchmark into `out`, or leave it as it is where it is there; returns what failed.

    Raises UsageError when what is there was run with other settings.
    """
    cfg = compose("benchmark", [*overrides, f"out={out}", f"workers={workers}"])
    if (out / "study.json").exists():
        known = json.loads((out / "study.json").read_text(encoding="utf-8"))
        if known != json.loads(json.dumps(benchmark.described(cfg))):
            raise UsageError(f"{out} holds a benchmark with other settings; choose another --out")
        return []
    display.line(shlex.join(["python", "-m", "experiments.benchmark", *overrides]))
    with RunFolder(out, resumable=True) as run:
        command = ["python", "-m", "experiments.benchmark", *overrides]
        run.identify(cfg, "benchmark", cell.read_trace(cfg.trace), command, overrides)
        failed = benchmark.study(cfg, run, Silent())
        run.status("partly failed" if failed else "completed", "; ".join(failed))
    return failed


if __name__ == "__main__":
    sys.exit(main())
