"""How a composed configuration differs from its defaults: two texts -> rows of key, default, value.

Reads the block YAML that OmegaConf writes (mappings, lists, scalars; no anchors), so that a page needs no YAML
library; values stay the text that stands in the file.
"""

from __future__ import annotations

import re
from collections import Counter

_KEY = re.compile(r"""(?P<key>'[^']*'|"[^"]*"|[^\s'"#\[{|>&*!%@`-][^:]*?|-[^\s:][^:]*?):(?:\s+(?P<value>.*))?$""")
_ITEM = re.compile(r"-(?:\s+(?P<rest>.*))?$")


def flat(text: str) -> dict[str, str]:
    """Every value of the YAML text by its dotted path; list items by their number."""
    leaves: dict[str, str] = {}
    path: list[tuple[float, str]] = []
    items: Counter[str] = Counter()
    for line in text.splitlines():
        content = line.strip()
        if content and not content.startswith("#"):
            _take(content, float(len(line) - len(line.lstrip())), path, items, leaves)
    return leaves


def _take(
    content: str, indent: float, path: list[tuple[float, str]], items: Counter[str], leaves: dict[str, str]
) -> None:
    if item := _ITEM.match(content):
        # a list may stand as deep as its key: half a step keeps it below the key and above its own content
        _leave(path, indent + 0.5)
        parent = _dotted(path)
        path.append((indent + 0.5, str(items[parent])))
        items[parent] += 1
        if item["rest"]:
            _take(item["rest"], indent + 2.0, path, items, leaves)
    elif key := _KEY.match(content):
        _leave(path, indent)
        path.append((indent, key["key"].strip("'\"")))
        if key["value"]:
            leaves[_dotted(path)] = key["value"]
    else:  # a bare list item, or the next line of a long text
        leaves[_dotted(path)] = " ".join(filter(None, [leaves.get(_dotted(path), ""), content]))


def _leave(path: list[tuple[float, str]], indent: float) -> None:
    while path and path[-1][0] >= indent:
        path.pop()


def _dotted(path: list[tuple[float, str]]) -> str:
    return ".".join(key for _, key in path)


def difference(config: str, defaults: str) -> list[tuple[str, str | None, str | None]]:
    """(key, default, value) of every path whose text differs, by key; None where one side lacks it."""
    here, there = flat(config), flat(defaults)
    keys = sorted(here.keys() | there.keys())
    return [(key, there.get(key), here.get(key)) for key in keys if here.get(key) != there.get(key)]
