import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaagentx.tools.spelling import rebuild, same, spell

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
KEYS = st.booleans() | st.integers() | st.text(max_size=5) | st.tuples(st.integers())
VALUES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(KEYS, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)
JSON = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["set", "dict", "x"]), inner)
)


@given(VALUES)
def test_a_value_survives_json(value):
    spelled = json.loads(json.dumps(spell(value)))
    assert rebuild(spelled) == value
    assert same(spell(value), spelled)


@given(VALUES, JSON)
def test_comparing_with_anything_never_raises(value, hostile):
    assert same(spell(value), hostile) in (True, False)
    assert same(hostile, spell(value)) in (True, False)


@pytest.mark.parametrize(
    ("wanted", "got", "equal"),
    [
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        (math.nan, math.nan, True),
        (math.inf, 10**400, False),
        (918273645, 918273645.4, False),
        (3, 2.9999999996, False),
        (3.0, 2.9999999996, True),
        (10**400, math.inf, False),
        (1.0, 1, True),
        (1, True, False),
        (1.0, True, False),
        (1, "1", False),
        ((1, 2), [1, 2], True),
        ([1], {1}, False),
        ({}, set(), False),
        ([], None, False),
        ({1: 2, "a": (3,)}, {"a": [3], 1: 2}, True),
        ({1, 2}, {2, 1}, True),
        ([1, 2], [2, 1], False),
        ([[1.0000000001]], [[1]], True),
    ],
)
def test_equality(wanted, got, equal):
    assert same(spell(wanted), spell(got)) is equal


def test_a_hostile_depth_is_no_equality():
    deep: object = 1
    for _ in range(900):
        deep = {"dict": [[1, deep]]}
    assert same(deep, deep) in (True, False)
    assert not same({"dict": [[1, 2]]}, deep)


def test_a_dictionary_keeps_its_order_on_the_way_in():
    assert list(rebuild(spell({"b": 1, "a": 2}))) == ["b", "a"]


def test_only_exact_built_in_types_are_spelled():
    class Liar(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    for value in (Liar(), [Liar()], {1: Liar()}, {Liar(): 1}, object(), 1j, b"x"):
        with pytest.raises(TypeError):
            spell(value)


def test_what_nests_without_end_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(TypeError, match="deep"):
        spell(endless)
