"""Which row a prompt goes to and where its beginning comes from, against a cache in which the tokens themselves lie."""

from __future__ import annotations

import numpy as np
import pytest

from metaagentx.rollout.rows import NOWHERE, Prompt, Rows


def rows(slots=6, share="prefix", unit=1, shards=1):
    return Rows(slots, 32, share, unit, shards)


def prompt(tokens, conversation=-1, adapter=-1):
    return Prompt(np.array(tokens, np.int32), adapter, conversation)


def shard(slot, slots, shards):
    return slot * shards // slots


def shared(places):
    return [place for place in places if place.shared]


class Cache:
    """Every slot's tokens, and the prompt after which it has logits; moved as the engine's programs move them."""

    def __init__(self, slots):
        self.tokens = np.full((slots, 32), -9)
        self.after = [()] * slots  # what the logits are after

    def put(self, prompts, places, rng):
        """Level by level; copies first, then in any order, and what lies beyond a prompt becomes anything."""
        for level in sorted({place.level for place in places}):
            here = [i for i, place in enumerate(places) if place.level == level]
            rng.shuffle(here)
            here.sort(key=lambda i: places[i].shared < len(prompts[i].tokens))
            for i in here:
                tokens, place = prompts[i].tokens, places[i]
                if place.shared == len(tokens):
                    assert self.after[place.source] == tuple(tokens)
                begin = self.tokens[place.source, : place.shared].copy() if place.shared else []
                if place.shared < len(tokens) or place.source != place.slot:
                    self.tokens[place.slot] = -7
                    self.tokens[place.slot, : len(tokens)] = [*begin, *tokens[place.shared :]]
                    self.after[place.slot] = tuple(tokens)
        for i, place in enumerate(places):
            np.testing.assert_array_equal(self.tokens[place.slot, : len(prompts[i].tokens)], prompts[i].tokens)
            assert self.after[place.slot] == tuple(prompts[i].tokens)


@pytest.mark.parametrize("share", ["prefix", "prompt", "none"])
@pytest.mark.parametrize(("shards", "seed"), [*((1, seed) for seed in range(20)), *((3, seed) for seed in range(8))])
def test_every_prompt_is_in_its_row_when_its_wave_has_been_placed(share, shards, seed):
    """Over random workloads of few tokens, so that much is shared: turns, holds, equal prompts, two adapters."""
    rng = np.random.default_rng(seed)
    slots = 5 if shards == 1 else 9
    table, cache = rows(slots, share, int(rng.integers(1, 4)), shards), Cache(slots)
    running: dict[int, Prompt] = {}
    dialogues: list[Prompt] = []
    for number in range(150):
        wave = []
        for _ in range(rng.integers(0, len(table.free) + 1)):
            if dialogues and rng.random() < 0.4:
                last = dialogues.pop(rng.integers(len(dialogues)))
                tokens = [*last.tokens, *rng.integers(0, 2, rng.integers(1, 4))][:24]
                wave.append(prompt(tokens, last.conversation, last.adapter))
            else:
                tokens = [*[7] * rng.integers(0, 8), *rng.integers(0, 2, rng.integers(1, 8))]
                wave.append(prompt(tokens, 1000 * number + len(wave), int(rng.integers(-1, 1))))
        wanted = [p for p in wave if p.conversation not in table.kept]
        wave = [p for p in wave if p.conversation in table.kept] + wanted[: len(table.free)]
        places = table.place(wave)
        assert len({place.slot for place in places} | running.keys()) == len(places) + len(running)
        assert all(shard(place.slot, slots, shards) == shard(place.source, slots, shards) for place in shared(places))
        cache.put(wave, places, rng)
        running |= {place.slot: p for p, place in zip(wave, places, strict=True)}
        for slot in [slot for slot in running if rng.random() < 0.5]:
            reply, held = rng.integers(0, 2, rng.integers(1, 5)).astype(np.int32), running.pop(slot)
            size = len(held.tokens)
            cache.tokens[slot, size:] = -7  # decoding writes the reply; what is beyond it may be anything
            cache.tokens[slot, size : size + len(reply) - 1] = reply[:-1]
            table.end(slot, reply)
            dialogues.append(prompt([*held.tokens, *reply], held.conversation, held.adapter))
            if rng.random() < 0.4:
                table.hold(held.conversation)
        if not table.free and table.kept:
            table.release(next(iter(table.kept)))


def test_within_a_wave_every_shared_token_is_computed_once_in_as_few_levels_as_the_prompts_branch():
    system, questions = [5] * 8, [[1] * 8, [2] * 8, [3] * 8]
    wave = [prompt([*system, *question, agent]) for question in questions for agent in range(4)]
    places = rows(slots=12).place(wave)
    computed = sum(len(p.tokens) - place.shared for p, place in zip(wave, places, strict=True))
    assert computed == 8 + 3 * (8 + 4)  # the system's prompt, each question, each agent's last token
    assert max(place.level for place in places) == 2


def test_equal_prompts_are_computed_once():
    places = rows().place([prompt([1, 2, 3])] * 4)
    assert [place.shared for place in places] == [0, 3, 3, 3]
    assert {place.source for place in places[1:]} == {places[0].slot}


def test_the_next_turn_goes_on_in_its_own_row():
    table = rows()
    first = table.place([prompt([7, 1, 2, 3, 4], conversation=1), prompt([8, 1], conversation=2)])
    table.end(first[0].slot, np.array([5, 6], np.int32))
    (place,) = table.place([prompt([7, 1, 2, 3, 4, 5, 6, 9], conversation=1)])
    assert (place.slot, place.source, place.shared, place.own) == (first[0].slot, first[0].slot, 6, True)


def test_a_row_that_is_free_is_overwritten_in_the_order_in_which_rows_became_free():
    table = rows(slots=3)
    places = table.place([prompt([number] * 5) for number in range(3)])
    for place in reversed(places):
        table.end(place.slot, np.array([9], np.int32))
    assert table.place([prompt([4] * 5)])[0].slot == places[2].slot
    assert table.place([prompt([4] * 4)])[0].slot == places[1].slot


def test_a_row_from_which_another_prompt_is_copied_is_overwritten_last():
    table = rows(slots=2)
    old, other = table.place([prompt([1, 1, 1, 1, 1, 1, 2]), prompt([3])])
    table.end(old.slot, np.array([9, 9, 9], np.int32))
    table.end(other.slot, np.array([9], np.int32))
    (place,) = table.place([prompt([1, 1, 1, 1, 1, 1, 4])])
    assert (place.slot, place.source, place.shared) == (other.slot, old.slot, 6)
    (short,) = table.place([prompt([1, 1, 1, 1, 1, 1, 5])])  # no other row is free
    assert (short.slot, short.source) == (old.slot, old.slot)


def test_a_kept_row_is_nobody_elses_until_it_is_released():
    table = rows(slots=2)
    (place,) = table.place([prompt([1, 2, 3, 4, 5], conversation=8)])
    table.end(place.slot, np.array([6], np.int32))
    table.hold(8)
    assert table.place([prompt([1, 2, 3, 4, 5])])[0].slot != place.slot
    assert not table.free
    (again,) = table.place([prompt([1, 2, 3, 4, 5, 6], conversation=8)])
    assert again.slot == place.slot
    assert not table.kept
    table.hold(NOWHERE)
    assert not table.kept


def test_a_row_of_a_dialogue_that_ended_is_free_and_not_the_next_ones_of_its_number():
    table = rows(slots=2)
    (place,) = table.place([prompt([1, 2, 3, 4], conversation=8)])
    table.end(place.slot, np.array([5], np.int32))
    table.hold(8)
    table.part(8)
    assert sorted(table.free) == [0, 1]
    (other,) = table.place([prompt([1, 2, 3, 4, 5], conversation=8)])
    assert (other.shared, other.own) == (4, False)


def test_sharing_must_save_a_block():
    long, other = prompt([1, 2, 3, 4, 5, 6, 7]), prompt([1, 2, 9, 9, 9, 9, 9])
    assert [p.shared for p in rows(unit=4).place([long, other])] == [0, 0]
    assert [p.shared for p in rows(unit=2).place([long, other])] == [0, 2]


def test_the_unit_rounds_what_is_shared_and_prefers_what_is_there():
    table = rows(unit=4)
    table.place([prompt([1, 2, 3, 4, 9, 9, 9, 9, 9, 9])])
    places = table.place([prompt([1, 2, 3, 4, 5, 6, 7]), prompt([1, 2, 3, 4, 5, 6, 8])])
    assert [(place.shared, place.level) for place in places] == [(4, 0), (4, 0)]


def test_a_prompt_shares_nothing_with_another_adapters():
    places = rows().place([prompt([1, 2, 3, 4, 5], adapter=a) for a in (0, 1, -1)])
    assert [place.shared for place in places] == [0, 0, 0]


def test_a_dialogue_keeps_one_row_however_often_it_is_held():
    table = rows(slots=2)
    wave = [prompt([1, 2, 3], conversation=8), prompt([4, 5, 6], conversation=8)]
    for place in table.place(wave):
        table.end(place.slot, np.array([9], np.int32))
    table.hold(8)
    table.hold(8)
    table.release(8)
    assert sorted(table.free) == [0, 1]


def test_a_prompt_goes_to_the_shard_where_its_beginning_is_and_shares_nothing_elsewhere():
    table = rows(slots=6, shards=3)
    (first,) = table.place([prompt([1, 2, 3, 4])])
    near, far = table.place([prompt([1, 2, 3, 5]), prompt([1, 2, 3, 6])])  # there is room for one of them
    assert {shard(first.slot, 6, 3), shard(near.slot, 6, 3)} == {0}
    assert (near.source, near.shared) == (first.slot, 3)
    assert shard(far.slot, 6, 3) != 0
    assert far.shared == 0


def test_prompts_with_nothing_in_common_are_spread_over_the_shards():
    places = rows(slots=6, shards=3).place([prompt([number] * 4) for number in range(6)])
    assert [sum(shard(place.slot, 6, 3) == home for place in places) for home in range(3)] == [2, 2, 2]


def test_a_dialogue_keeps_its_row_though_longer_prompts_want_its_shard():
    table = rows(slots=4, shards=2)
    mine, other = table.place([prompt([1, 2, 3], conversation=8), prompt([1, 2, 3, 4, 5], conversation=9)])
    assert shard(mine.slot, 4, 2) == shard(other.slot, 4, 2)
    table.end(mine.slot, np.array([9, 9], np.int32))
    again, longer = table.place([prompt([1, 2, 3, 9, 9], conversation=8), prompt([1, 2, 3, 4, 5, 6, 7])])
    assert (again.slot, again.own) == (mine.slot, True)
    assert longer.shared == 0
