"""An OpenAI-compatible server as a sampler: for evaluation, and for roles that do not train.

It answers with text. Encoded with the run's own tokenizer, that is a reply like any other: conversations go on and
tokens are counted. Its log-probabilities are zeros, and nothing may train on them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol, TypeAlias

import numpy as np

from metaagentx.rollout.at_work import Share, alone
from metaagentx.rollout.options import SamplingOptions, ServerOptions
from metaagentx.rollout.sampled import Ask, Sampled
from metaagentx.rollout.work import Clock, Work
from metaagentx.tools.exchange import Unanswered, exchange, secret
from metaagentx.workflow.protocol import Message, Outcome

MOST_KB = 8192  # of an answer
TURN = 0.002  # seconds that a step waits for an answer: an engine beside it may have work
PAUSE = 0.5  # seconds before the second attempt, about twice as long before each further one

Found = tuple[int, str | None, bool]  # ticket, text (None: the server gave none), whether it was cut
Answers: TypeAlias = queue.SimpleQueue[tuple[Found, Exception | None]]


class Speech(Protocol):
    """How a reply's text becomes token ids."""

    end: int  # id of the token that ends a reply

    def encode(self, text: str) -> Sequence[int]:
        """Ids of plain text."""
        ...


class Remote:
    """Asks a server for the replies of one role. See `sampled.Sampler` for the contract.

    A call takes a bounded number of attempts of bounded time. One that none of them answers is FAILED: our own fault,
    masked from training. Of processes in lockstep the first one asks, and `share` tells the others what came of it.
    """

    version = 0

    def __init__(self, role: str, options: ServerOptions, speech: Speech, capacity: int, share: Share = alone) -> None:
        """`capacity`: tokens of prompt and reply, unless `options` say. Raises ValueError where a key is not set."""
        self.role, self.options, self.speech, self.share = role, options, speech, share
        self.context = options.context or capacity
        self.work = Work()
        self._headers = {"Content-Type": "application/json", "User-Agent": "metaagentx"}
        self._key = secret(options.key_variable, f"{self._name}.key_variable") if options.key_variable else ""
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._asked: dict[int, Ask] = {}  # and not answered
        self._sent: set[int] = set()  # of these
        self._found: Answers = queue.SimpleQueue()
        self._troubles: Counter[str] = Counter()

    def check(self) -> None:
        """Ask for one token. Raises ValueError, for who wrote the config to read, if the server does not answer."""
        ask = Ask(0, np.zeros(0, np.int32), (0,) * 6, SamplingOptions(), self.role, messages=(Message("user", "?"),))

        def find() -> str:
            try:
                self._reply(ask, 1)
            except Unanswered as trouble:
                return str(trouble)
            return ""

        if trouble := self.share(find):
            raise ValueError(f"{self._name}: the server {trouble}")

    def room(self, reply: int) -> int:
        """Tokens of the longest prompt beside a reply of `reply` tokens: at least half of the context."""
        return max(self.context - reply, self.context // 2)

    def submit(self, ask: Ask) -> None:
        """Queue one call."""
        self._asked[ask.ticket] = ask
        self.work.calls += 1

    def hold(self, conversation: int) -> None:
        """What a server keeps of a dialogue is its own affair."""

    def release(self, conversation: int) -> None:
        """Nothing is kept here."""

    def drop(self) -> None:
        """Forget every call; the answers of those under way go where nobody looks."""
        self._asked.clear()
        self._sent.clear()
        self._found = queue.SimpleQueue()

    def step(self) -> list[tuple[int, Sampled]]:
        """Send what may be sent, wait a moment; (ticket, reply) of every call that ended."""
        return [(ticket, self._sampled(ticket, text, cut)) for ticket, text, cut in self.share(self._take)]

    def watch(self, clock: Clock) -> None:
        """Count what is done from now on; a server's seconds are none of a device."""
        self.work = Work()

    def take_work(self) -> Work:
        """What was done since the last time this was asked."""
        work, self.work = self.work, Work()
        return work

    @property
    def _name(self) -> str:
        return f"policies.servers.{self.role}"

    def _bound(self, ask: Ask) -> int:
        """New tokens that there is room for."""
        return min(ask.sampling.max_tokens, self.context - len(ask.prompt))

    def _sampled(self, ticket: int, text: str | None, cut: bool) -> Sampled:
        """A text as a reply in tokens; what the server wrote beyond the room that there is, is left out."""
        ask = self._asked.pop(ticket)
        self._sent.discard(ticket)
        if text is None or self._bound(ask) < 1:
            outcome = Outcome.FAILED if text is None else Outcome.TOO_LONG
            return Sampled(np.zeros(0, np.int32), np.zeros(0, np.float32), outcome)
        room = self.context - len(ask.prompt)
        ids = [*self.speech.encode(text)]
        outcome = Outcome.CUT if ids and (cut or len(ids) >= room) else Outcome.OK if ids else Outcome.EMPTY
        tokens = np.array(ids[:room] if outcome is Outcome.CUT else [*ids, self.speech.end], np.int32)
        self.work.generated_tokens += len(tokens)
        return Sampled(tokens, np.zeros(len(tokens), np.float32), outcome)

    def _take(self) -> list[Found]:
        """Keep `in_flight` calls under way; those that ended."""
        for ticket, ask in self._asked.items():
            if len(self._sent) >= self.options.in_flight:
                break
            if ticket not in self._sent:
                self._sent.add(ticket)
                threading.Thread(target=self._call, args=(ask, self._found), daemon=True).start()
        found: list[Found] = []
        try:
            while self._sent:
                ended, error = self._found.get(timeout=0 if found else TURN)
                if error is not None:
                    self._complain(error)
                found.append(ended)
        except queue.Empty:
            pass
        return found

    def _complain(self, error: Exception) -> None:
        """Log a trouble of the server the first time, the second, the fourth and so on; raise what is another's."""
        if not isinstance(error, Unanswered):
            raise error
        self._troubles[str(error)] += 1
        count = self._troubles[str(error)]
        if count & (count - 1) == 0:
            logging.warning("%s: the server %s (failed calls so far: %d)", self._name, error, count)

    def _call(self, ask: Ask, answers: Answers) -> None:
        """One call from its first attempt to its last, on a thread of its own."""
        try:
            bound = self._bound(ask)
            text, cut = self._reply(ask, bound) if bound > 0 else ("", False)
            answers.put(((ask.ticket, text, cut), None))
        except Exception as error:  # a call that raises must not be waited for
            answers.put(((ask.ticket, None, False), error))

    def _reply(self, ask: Ask, bound: int) -> tuple[str, bool]:
        """The server's text, and whether it reached its bound. Raises Unanswered after the last attempt."""
        options, luck = self.options, random.Random(hashlib.sha256(repr(ask.ids).encode()).digest())
        wanted: dict[str, Any] = {
            "model": options.model,
            "messages": [spoken(message) for message in ask.messages],
            "temperature": ask.sampling.temperature,
            "seed": luck.getrandbits(31),
            options.length_key: bound,
        }
        if ask.sampling.top_p < 1:
            wanted["top_p"] = ask.sampling.top_p
        if ask.sampling.stop:
            wanted["stop"] = list(ask.sampling.stop)  # servers leave the string itself out of the text
        url, body = options.url.rstrip("/") + "/chat/completions", json.dumps(wanted).encode()
        for attempt in range(options.retries + 1):
            try:
                answer = exchange("POST", url, self._headers, body, seconds=options.seconds, most_kb=MOST_KB)
                return read_reply(answer)
            except Unanswered as trouble:
                if attempt == options.retries or not trouble.again or trouble.pause > options.seconds:
                    raise Unanswered(f"{trouble}{self._told(trouble.body)}", again=False) from None
                pause = max(trouble.pause, PAUSE * 2**attempt * luck.uniform(0.5, 1.5))
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _told(self, body: bytes) -> str:
        """What a server says about an error, as the end of one line of ours."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return ""
        inner = answer.get("error", answer) if isinstance(answer, dict) else None
        text = inner.get("message") if isinstance(inner, dict) else None
        if not isinstance(text, str) or not text.strip():
            return ""
        line = "".join(c if c.isprintable() else " " for c in text)
        return f": {(line.replace(self._key, '[key]') if self._key else line)[:300]}"


def spoken(message: Message) -> dict[str, str]:
    """A message as servers take it. Tools were asked for in text, so what they gave is text that the user brings."""
    text = message.content.encode(errors="replace").decode()  # half a surrogate pair is no text
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"}
    return {"role": message.role, "content": text}


def read_reply(body: bytes) -> tuple[str, bool]:
    """The text of a chat completion, and whether it reached its bound. Raises Unanswered for what is none."""

    def refuse(word: str) -> NoReturn:
        raise ValueError(word)

    try:
        answer = json.loads(body, parse_constant=refuse)  # NaN and the like are not JSON
    except (ValueError, RecursionError):
        raise Unanswered("sent an answer that is not JSON", again=False) from None
    try:
        choice = answer["choices"][0]
        text, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (LookupError, TypeError, AttributeError):
        text = 0
    if not isinstance(text, str | None):
        raise Unanswered("sent an answer without the text choices[0].message.content", again=False)
    return text or "", cut
