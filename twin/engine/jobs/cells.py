"""Single values of an array at half the price: a view that hands out plain Python numbers."""

from __future__ import annotations

from typing import Any, Protocol, cast

from numpy.typing import NDArray


class Cells(Protocol):
    """The values of a one-dimensional array, one by one; writing here writes there."""

    def __getitem__(self, index: int, /) -> Any:  # noqa: ANN401 - int or float, as the array
        """One value as a plain number."""
        ...

    def __setitem__(self, index: int, value: Any, /) -> None:  # noqa: ANN401
        """Write one value."""
        ...


def cells(column: NDArray[Any]) -> Cells:
    """The values of `column`, one by one."""
    return cast("Cells", memoryview(cast("Any", column)))
