"""The configuration's difference, read from the YAML text that a verb writes."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from reports.differences import difference, flat

keys = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda k: k not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
)
scalars = st.one_of(
    st.integers(), st.booleans(), st.none(), st.sampled_from(["a b", "x: y", "- no", "it's", "", "1", "long " * 30])
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(keys, inner, min_size=1, max_size=3),
    max_leaves=12,
)


def leaves(tree, path=""):
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if children is None:
        return {path: tree}
    return {k: v for key, child in children for k, v in leaves(child, f"{path}.{key}" if path else str(key)).items()}


@given(st.dictionaries(keys, trees, min_size=1, max_size=4))
def test_every_value_is_found_at_its_path(tree):
    found = flat(yaml.safe_dump(tree))
    assert {path: yaml.safe_load(text) for path, text in found.items()} == leaves(tree)


def test_only_what_differs_is_told_with_both_sides():
    defaults = "seed: 0\ncontroller:\n  name: hpa\n  interval_s: 30\nsuite:\n- recorded\n"
    config = "seed: 7\ncontroller:\n  name: hpa\n  interval_s: 30\nsuite:\n- recorded\n- surge\n"
    assert difference(config, defaults) == [("seed", "0", "7"), ("suite.1", None, "surge")]
    assert difference(defaults, defaults) == []
    assert difference("", "a: 1\n") == [("a", "1", None)]
