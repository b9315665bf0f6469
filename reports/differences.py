"""How a composed configuration differs from its defaults: two YAML texts -> rows of key, default, value."""

from __future__ import annotations

from typing import Any

import yaml

from twin.errors import UsageError


def flat(text: str) -> dict[str, str]:
    """Every value of the YAML text by its dotted path, as YAML writes it; list items by their number.

    Raises UsageError when the text is not YAML.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"the configuration in the run folder is not YAML: {error}; run the verb again") from error
    return {path: _scalar(value) for path, value in _leaves(tree, "") if path}


def difference(config: str, defaults: str) -> list[tuple[str, str | None, str | None]]:
    """(key, default, value) of every path whose value differs, by key; None where one side lacks it."""
    here, there = flat(config), flat(defaults)
    keys = sorted(here.keys() | there.keys())
    return [(key, there.get(key), here.get(key)) for key in keys if here.get(key) != there.get(key)]


def _leaves(tree: Any, path: str) -> list[tuple[str, Any]]:  # noqa: ANN401 - any YAML value
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if not children:
        return [(path, tree)]
    return [leaf for key, child in children for leaf in _leaves(child, f"{path}.{key}" if path else str(key))]


def _scalar(value: Any) -> str:  # noqa: ANN401 - any YAML value
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
