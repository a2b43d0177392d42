"""An engine, a chat and tools that answer from a script: no model, no jax."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Ask, CallIds, Sampled
from metaagentx.workflow.protocol import Message, Outcome, ToolCall, ToolResult

END = 0  # of a turn


class Letters:
    """Every character is its code; a role's mark is its first letter; END ends an assistant's turn."""

    def begin(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return [code for m in messages for code in (ord(m["role"][0]), *map(ord, m["content"]))] + [ord(">")]

    def extend(self, ids: Sequence[int], messages: Sequence[Mapping[str, str]], ended: bool) -> list[int]:
        return [*ids, *([] if ended else [END]), *self.begin(messages)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids if i != END)


class Scripted:
    """Answers each prompt with `reply(prompt text)`; a reply of None does not fit; one ending in "~" is cut.

    At most `slots` calls a step are answered, in the order `pick` gives.
    """

    version = 7

    def __init__(self, reply: Callable[[str], str | None], slots: int = 100, newest_first: bool = False) -> None:
        self.reply, self.slots, self.newest_first = reply, slots, newest_first
        self.queue: deque[tuple[int, np.ndarray, SamplingOptions]] = deque()
        self.prompts: list[np.ndarray] = []
        self.ids: list[CallIds] = []
        self.roles: list[str] = []
        self.asked: list[Ask] = []
        self.held: list[int] = []
        self.released: list[int] = []
        self.steps = 0

    def submit(self, ask: Ask) -> None:
        self.queue.append((ask.ticket, ask.prompt, ask.sampling))
        self.prompts.append(ask.prompt)
        self.ids.append(ask.ids)
        self.roles.append(ask.role)
        self.asked.append(ask)

    def hold(self, conversation: int) -> None:
        self.held.append(conversation)

    def release(self, conversation: int) -> None:
        self.released.append(conversation)

    def drop(self) -> None:
        self.queue.clear()

    def step(self) -> list[tuple[int, Sampled]]:
        self.steps += 1
        done = []
        for _ in range(min(self.slots, len(self.queue))):
            ticket, prompt, sampling = self.queue.pop() if self.newest_first else self.queue.popleft()
            text = self.reply("".join(map(chr, prompt)))
            if text is None:
                done.append((ticket, Sampled(np.zeros(0, np.int32), np.zeros(0, np.float32), Outcome.TOO_LONG)))
                continue
            tokens = [*map(ord, text.rstrip("~"))][: sampling.max_tokens]
            cut = text.endswith("~")
            tokens += [] if cut else [END]
            outcome = Outcome.CUT if cut else Outcome.OK
            done.append(
                (ticket, Sampled(np.array(tokens, np.int32), -np.arange(len(tokens), dtype=np.float32), outcome))
            )
        return done


class Adder:
    """The tool `add`."""

    def submit(self, call: ToolCall) -> Future[ToolResult]:
        future: Future[ToolResult] = Future()
        future.set_result(ToolResult(str(sum(call.arguments["numbers"]))))
        return future


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)
