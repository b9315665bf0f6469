"""Work side by side on this machine: one process per core, results as they come.

For many machines there is Hydra's Ray launcher.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from twin.errors import WorkbenchError

Item = TypeVar("Item")
Result = TypeVar("Result")

# numerical libraries must not start a thread per core in every process
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def run_all(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result | WorkbenchError]]:
    """Each item with its result, or with the foreseen error it ended in, in order of completion.

    With one worker everything happens in this process, in order. Unforeseen errors are raised.
    """
    if workers <= 1 or len(items) <= 1:
        for item in items:
            yield item, _attempt(function, item)
        return
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool:
        futures = {pool.submit(_attempt, function, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | WorkbenchError:
    try:
        return function(item)
    except WorkbenchError as error:
        return error
