# SPDX-License-Identifier: Apache-2.0
"""A setting that is given twice is a mistake to hear about."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleet.description import Description
from fleet.errors import FleetError
from fleet.strict_yaml import load
from fleet.training.config import load_config

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc xyz", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcd", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_whatever_has_no_double_key_reads_as_ever(value):
    text = yaml.safe_dump(value)
    assert load(text) == yaml.safe_load(text) == value


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "x:\n  - {b: 1, c: 2, b: 1}\n", "1: a\n1: b\n"])
def test_a_key_that_stands_twice_is_named(text):
    with pytest.raises(yaml.YAMLError, match="stands twice"):
        load(text)


def test_merged_mappings_may_be_overridden():
    assert load("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n")["b"] == {"p": 1, "q": 3}


def test_a_key_that_cannot_be_one_is_yaml_s_own_error():
    with pytest.raises(yaml.YAMLError):
        load("{[1, 2]: 3}")


@pytest.mark.parametrize("read", [Description.load, load_config])
def test_the_user_hears_of_it_in_one_line(tmp_path, read):
    path = tmp_path / "twice.yaml"
    path.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(FleetError, match="'seed' stands twice") as problem:
        read(path)
    assert "\n" not in str(problem.value)
