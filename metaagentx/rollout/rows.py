"""What each slot's row of the cache holds, and who may use it: known on the host, without asking a device.

A row holds the tokens whose keys and values are in it: the prompt of a running call, and after it ended that prompt
and its reply but for the last token. So a new prompt need not be computed from its first token on: it begins as some
row does, running or not, or as another prompt of the same wave. What it shares is copied (nothing, where it goes on in
the very row that it shares), and only the rest is computed.

On a mesh that cuts the slots into shards a prompt shares within its own shard alone, so that nothing is copied between
devices: it goes where what it begins as is, if a row is free there.

Letters: S slots, C capacity, n tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.options import Share

NOWHERE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What is to be put into a row."""

    tokens: NDArray[np.int32]
    adapter: int  # of the weights that it is for: rows of others are of no use; -1 for none
    conversation: int  # -1: of none


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prompt goes, and what it needs there."""

    slot: int
    source: int  # the slot whose row it begins as, may be its own; NOWHERE: nothing is shared
    shared: int  # tokens that it has in common with `source`; all n: the logits after it too
    level: int  # places of lower levels must be filled before: one of them may be the source
    own: bool = False  # whether `source` held the dialogue so far


@dataclass(frozen=True, slots=True)
class Choice:
    """The best beginning of a prompt: of a row (below S), or of the wave's prompt number `source` - S."""

    source: int = NOWHERE
    shared: int = 0
    level: int = 0
    common: int = 0  # tokens in common with `source`, of which `shared` are whole blocks


class Rows:
    """The S rows of one engine, all free and empty at first.

    Args:
      unit: prefixes are shared in multiples of it: prompts are computed in blocks of so many tokens.
      shards: equal pieces that the slots are cut into, one after the other.
    """

    def __init__(self, slots: int, capacity: int, share: Share, unit: int, shards: int = 1) -> None:
        self.share, self.unit = share, unit
        self.shards = [range(begin, begin + slots // shards) for begin in range(0, slots, slots // shards)]
        self.held = np.zeros((slots, capacity), np.int32)
        self.length = np.zeros(slots, np.int32)  # of what is held
        self.prompt = np.zeros(slots, np.int32)  # of the prompt at its beginning, after which there are logits
        self.adapter = np.full(slots, NOWHERE, np.int32)
        self.conversation = np.full(slots, NOWHERE, np.int64)
        self.free: dict[int, None] = dict.fromkeys(range(slots))  # in the order in which they became free
        self.kept: dict[int, int] = {}  # by conversation: rows that are free for it alone, the oldest first

    def hold(self, conversation: int) -> None:
        """Keep what there is of a dialogue for its next turn."""
        if conversation == NOWHERE or conversation in self.kept:
            return
        for slot in reversed(self.free):
            if self.conversation[slot] == conversation:
                del self.free[slot]
                self.kept[conversation] = slot
                return

    def release(self, conversation: int) -> None:
        """If a row is kept for this dialogue, it is free for everyone again."""
        if conversation in self.kept:
            self.free[self.kept.pop(conversation)] = None

    def part(self, conversation: int) -> None:
        """This dialogue has ended: no row is kept for it or its own. What they hold may be shared as before."""
        self.release(conversation)
        self.conversation[self.conversation == conversation] = NOWHERE

    def end(self, slot: int, reply: NDArray[np.int32]) -> None:
        """The call in `slot` ended with this reply [n]; the row is free and still holds both."""
        begin, more = self.prompt[slot], len(reply) - 1
        self.held[slot, begin : begin + more] = reply[:-1]
        self.length[slot] = begin + more
        self.free[slot] = None

    def place(self, prompts: Sequence[Prompt]) -> list[Place]:
        """Take a free row for each prompt, at most as many as are free or kept for one of them.

        The first rows to be overwritten are those that have been free for longest and that no prompt begins as.
        """
        for prompt in prompts:
            self.release(prompt.conversation)
        places: dict[int, Place] = {}
        for shard, members in self._homes(prompts).items():
            places |= zip(members, self._place(shard, [prompts[i] for i in members]), strict=True)
        for number, prompt in enumerate(prompts):
            self._write(prompt, places[number].slot)
        return [places[number] for number in range(len(prompts))]

    def common(self, prompt: Prompt, rows: range) -> NDArray[np.int64]:
        """The tokens with which each of `rows` begins as the prompt does; 0 where not even their first blocks agree."""
        here = slice(rows.start, rows.stop)
        found = np.minimum(_common(self.held[here], prompt.tokens, self.unit), self.length[here])
        return np.where(self.adapter[here] == prompt.adapter, found, 0)

    def _own(self, slot: int, prompt: Prompt) -> bool:
        return slot != NOWHERE and prompt.conversation != NOWHERE and self.conversation[slot] == prompt.conversation

    def _write(self, prompt: Prompt, slot: int) -> None:
        size = len(prompt.tokens)
        self.held[slot, :size] = prompt.tokens
        self.length[slot] = self.prompt[slot] = size
        self.adapter[slot], self.conversation[slot] = prompt.adapter, prompt.conversation

    def _homes(self, prompts: Sequence[Prompt]) -> dict[range, list[int]]:
        """The numbers of the prompts that get a row in each shard: where most of a prompt is, or will be by then.

        Prompts whose dialogue has a row choose first, then the longest. Of shards as good: that with most free rows.
        """
        if len(self.shards) == 1:
            return {self.shards[0]: list(range(len(prompts)))}
        size = len(self.shards[0])
        owners = {int(self.conversation[slot]): slot // size for slot in self.free}  # a dialogue's last row
        owners.pop(NOWHERE, None)
        room = np.bincount([slot // size for slot in self.free], minlength=len(self.shards))
        table = np.zeros((len(prompts), max((len(p.tokens) for p in prompts), default=0)), np.int32)
        homes: dict[int, int] = {}
        for number in sorted(
            range(len(prompts)), key=lambda i: (prompts[i].conversation not in owners, -len(prompts[i].tokens))
        ):
            prompt = prompts[number]
            shared = np.zeros(len(self.shards), np.int64)
            if self.share != "none":
                among = _common(table[: len(homes)], prompt.tokens, self.unit)
                among[[prompts[i].adapter != prompt.adapter for i in homes]] = 0
                np.maximum.at(shared, np.array([*homes.values()], np.int64), among)
                rows = self.common(prompt, range(len(self.length)))
                shared = np.maximum(shared, rows.reshape(-1, size).max(axis=1))
            other = np.arange(len(self.shards)) != owners.get(prompt.conversation, NOWHERE)
            home = int(np.lexsort((-room, other, -(shared // self.unit), room == 0))[0])
            table[len(homes), : len(prompt.tokens)] = prompt.tokens
            homes[number] = home
            room[home] -= 1
        members: dict[range, list[int]] = {}
        for number in range(len(prompts)):
            members.setdefault(self.shards[homes[number]], []).append(number)
        return members

    def _place(self, shard: range, prompts: Sequence[Prompt]) -> list[Place]:
        """`place` for prompts that get rows in this shard."""
        choices = self._choose(shard, prompts)
        slots = self._take(shard, prompts, choices)
        places = []
        for prompt, choice, slot in zip(prompts, choices, slots, strict=True):
            source = choice.source if choice.source < len(self.length) else slots[choice.source - len(self.length)]
            own = choice.source < len(self.length) and self._own(choice.source, prompt)
            places.append(Place(slot, source, choice.shared, choice.level, own))
        return places

    def _choose(self, shard: range, prompts: Sequence[Prompt]) -> list[Choice]:
        """Each prompt's best beginning. Equal prompts begin as the first of them; of others the longer come first."""
        choices = [Choice()] * len(prompts)
        if self.share == "none":
            return choices
        slots = len(self.length)
        first: dict[tuple[int, bytes], int] = {}
        leaders: list[int] = []
        table = np.zeros((len(prompts), max((len(p.tokens) for p in prompts), default=0)), np.int32)
        for number in sorted(range(len(prompts)), key=lambda i: -len(prompts[i].tokens)):
            prompt, size = prompts[number], len(prompts[number].tokens)
            leader = first.setdefault((prompt.adapter, prompt.tokens.tobytes()), number)
            if leader != number:
                choice = choices[leader]
                whole = choice.shared == size  # then a row before this wave has it all
                choices[number] = choice if whole else Choice(slots + leader, size, choice.level + 1, size)
                continue
            common = self.common(prompt, shard)
            equal = np.flatnonzero((common == size) & (self.prompt[shard] == size))
            if len(equal):
                choices[number] = Choice(shard[equal[0]], size, common=size)
            elif self.share == "prefix":
                others = np.array(leaders, np.int64)
                among = _common(table[: len(leaders)], prompt.tokens, self.unit)
                among[[prompts[i].adapter != prompt.adapter for i in leaders]] = 0
                choices[number] = self._best(
                    size,
                    np.concatenate([shard, slots + others]),
                    np.concatenate([common, among]),
                    np.array([0] * len(shard) + [choices[i].level + 1 for i in leaders]),
                    np.concatenate([self.conversation[shard] != prompt.conversation, np.ones(len(leaders), bool)]),
                )
            table[len(leaders), :size] = prompt.tokens
            leaders.append(number)
        return choices

    def _best(
        self,
        size: int,
        sources: NDArray[np.int64],
        common: NDArray[np.int64],
        level: NDArray[np.int64],
        other: NDArray[np.bool_],
    ) -> Choice:
        """Of the sources with so many tokens in common: the most that is shared, the lowest level.

        At least one token is computed, for the logits after it.
        """
        shared = np.minimum(common, size - 1) // self.unit * self.unit
        best = np.lexsort((other, level, -shared))[0]
        if not shared[best]:
            return Choice()
        return Choice(int(sources[best]), int(shared[best]), int(level[best]), int(common[best]))

    def _take(self, shard: range, prompts: Sequence[Prompt], choices: Sequence[Choice]) -> list[int]:
        """A free row for each prompt; what another prompt of the wave begins as is not overwritten before it is read.

        A free row that prompts begin as can only go to the one that shares the most of it: the others' part of it
        stays as it is. It does where that is the row's own dialogue, or nothing else in it is lost, or rows are short.
        """
        heirs: dict[int, int] = {}  # by row: the prompt that shares most of it
        for number, choice in enumerate(choices):
            if choice.source in self.free:
                best = heirs.setdefault(choice.source, number)
                if choice.shared > choices[best].shared:
                    heirs[choice.source] = number
        taken: dict[int, int] = {}
        for row, heir in heirs.items():
            if self._own(row, prompts[heir]) or choices[heir].common == self.length[row]:
                taken[heir] = row
        free = [row for row in self.free if row in shard]
        plain = [row for row in free if row not in heirs]
        short = len(prompts) - len(taken) - len(plain)
        for row in [row for row in free if row in heirs and heirs[row] not in taken][: max(0, short)]:
            taken[heirs[row]] = row
        others = iter(plain)
        slots = [taken[number] if number in taken else next(others) for number in range(len(prompts))]
        for slot in slots:
            del self.free[slot]
        return slots


def _common(rows: NDArray[np.int32], tokens: NDArray[np.int32], unit: int) -> NDArray[np.int64]:
    """[N] tokens with which each of `rows` [N, >= n] begins as `tokens` [n] does; 0 where the first `unit` differ."""
    found = np.zeros(len(rows), np.int64)
    near = (rows[:, : len(tokens[:unit])] == tokens[:unit]).all(axis=1)
    same = (rows if near.all() else rows[near])[:, : len(tokens)] == tokens  # all of them need no copy
    found[near] = np.where(same.all(axis=1), same.shape[1], same.argmin(axis=1))
    return found
