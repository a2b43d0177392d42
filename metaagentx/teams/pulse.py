"""A server's signs of life, and those of its partners: who waits says for whom."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from metaagentx.teams.options import ExchangeOptions
from metaagentx.teams.store import Store

MISSED = 3  # beats without one, after which a server is missed
IDLE = 30  # beats in which nothing comes of a server that lives, after which whoever waits for it says so


class Pulse:
    """Says every `beat_seconds` that the server of `policy` lives and what it does, on a thread of its own."""

    def __init__(self, store: Store, policy: str, options: ExchangeOptions) -> None:
        self._store, self._policy, self._seconds = store, policy, options.beat_seconds
        self._doing, self._over = "starting", threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"pulse-{policy}", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def say(self, doing: str) -> None:
        """What the next sign of life will tell."""
        self._doing = doing

    def _beat(self) -> None:
        while True:
            try:
                self._store.beat(self._policy, self._doing)
            except Exception as error:  # whoever needs the store will fail of it; a sign of life is not worth that
                logging.warning("the store takes no sign of life: %s", error)
            if self._over.wait(self._seconds):
                return


class Watch:
    """Notices that partners are gone, that they are back, and that nothing comes of them; asked as often as one likes.

    Signs of life come from a thread that nothing holds up: of a server whose work hangs they are as regular as ever.
    """

    def __init__(self, store: Store, policy: str, options: ExchangeOptions) -> None:
        self._store, self._policy, self._seconds = store, policy, options.beat_seconds
        self._looked = time.monotonic()
        self._missed: dict[str, float] = {}  # partner -> the silence, in seconds, at which it is mentioned again
        self._since: dict[str, float] = {}  # partner -> when the wait for it began
        self._patience: dict[str, float] = {}  # partner -> the wait, in seconds, at which it is mentioned again

    def came(self, partner: str) -> None:
        """Something came of the server of this policy: what is waited for now is waited for from now on."""
        self._since.pop(partner, None)
        self._patience.pop(partner, None)

    def look(self, partners: set[str]) -> None:
        """Have an eye on the servers of these policies, which somebody waits for now."""
        now = time.monotonic()
        if now - self._looked < self._seconds:
            return
        self._looked = now
        beats = {beat.server: beat for beat in self._store.beats()}
        for partner in sorted(partners):
            beat = beats.get(partner)
            bound = self._missed.get(partner, MISSED * self._seconds)
            if beat is not None and beat.age < MISSED * self._seconds:
                if self._missed.pop(partner, None) is not None:
                    logging.warning("%s: the server of policy %r is back: %s", self._policy, partner, beat.text)
                    self.came(partner)
                waited = now - self._since.setdefault(partner, now)
                if waited >= self._patience.get(partner, IDLE * self._seconds):
                    told = "%s waits: the server of policy %r lives (%s), but nothing came of it for %.0f s"
                    logging.warning(told, self._policy, partner, beat.text, waited)
                    self._patience[partner] = 2 * waited
            elif beat is None:
                waited = now - self._since.setdefault(partner, now)
                if waited >= self._missed.get(partner, 0.0):
                    logging.warning("%s waits: no server of policy %r has come yet", self._policy, partner)
                    self._missed[partner] = max(bound, 2 * waited)
            elif beat.age >= bound:
                told = f"its last sign of life came {beat.age:.0f} s ago ({beat.text})"
                logging.warning("%s waits: the server of policy %r is gone, %s", self._policy, partner, told)
                self._missed[partner] = 2 * beat.age
