import pytest

from metaagentx.ahead.chips import CHIPS, Slice, TopologyError, describe


@pytest.mark.parametrize(
    ("name", "sides", "size", "links"),
    [
        ("v5p", (4, 4, 4), 4, 2),  # one ring: two links
        ("v5p", (4, 4, 4), 16, 4),
        ("v5p", (4, 4, 4), 64, 6),
        ("v5e", (16, 16), 16, 2),
        ("v5e", (16, 16), 128, 4),
        ("v5e", (4, 4), 4, 1),  # a short side is a line, whose end has one link
        ("v5e", (4, 4), 16, 2),
    ],
)
def test_a_collective_has_the_links_of_the_sides_that_hold_it(name, sides, size, links):
    chip = CHIPS[name]
    assert Slice(name, chip, sides, ()).link_bandwidth(size) == links * chip.link


@pytest.mark.parametrize("name", CHIPS)
def test_a_clock_is_that_of_a_chip(name):
    assert 0.9e9 < CHIPS[name].clock < 2e9


@pytest.mark.parametrize(
    ("name", "message"),
    [("v9:2x2", "v5e, v5p, v6e"), ("v5e", "like 4x4"), ("v5p:4x", "like 4x4x4"), ("v5e:0x4", "like 4x4")],
)
def test_a_slice_that_does_not_exist_is_refused(name, message):
    with pytest.raises(TopologyError, match=message):
        describe(name)
