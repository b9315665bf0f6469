"""Kernels that are compiled once and stored: without counting references, and never stale."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numba


def compiler(sources: Iterable[Path], **options: bool | str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that compiles the functions of a kernel that lies in these files.

    References are not counted: a kernel's arrays outlive every call, nothing in it makes one, and counting would cost
    several times what the functions do; a kernel that makes arrays says `_nrt=True`. `options` are those of
    `numba.njit`.
    """
    digits = version(sources)
    settings: dict[str, Any] = {"cache": True, "_nrt": False, **options}

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ += f"_{digits}"
        return numba.njit(**settings)(function)

    return compiled


def version(sources: Iterable[Path]) -> str:
    """Eight digits that differ where the sources do.

    Numba asks whether the file of a function is newer than its stored code. But that code holds the functions called
    too, and those stand in other files: the name under which it is stored has to tell them apart.
    """
    text = b"\0".join(source.read_bytes() for source in sorted(sources))
    return hashlib.blake2b(text, digest_size=4).hexdigest()
