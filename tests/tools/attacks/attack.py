"""What an attack is."""

from __future__ import annotations

from dataclasses import dataclass

ESCAPED = "escaped"  # what a program answers that got what it was after


@dataclass(frozen=True)
class Attack:
    """A hostile program. It has got away if it answers ESCAPED, if an answer holds one of the host's secrets, if it is
    graded as right, or if anything of it can be found afterwards.

    Before its text the names HOST_FILE, HOST_FOLDER, HOST_PORT, HOST_PID and REPOSITORY are defined. Where it has no
    function `f`, the one that is graded, `attack` is called in its place.
    """

    name: str
    tries: str
    text: str
    control: bool = False  # whether it harmlessly gets away where nothing isolates it, which shows that it can

    def program(self, host: dict[str, object]) -> str:
        names = "".join(f"{name} = {value!r}\n" for name, value in host.items())
        called = "" if "def f(" in self.text else "\ndef f(x):\n    return attack()\n"
        return f"{names}{self.text.strip()}\n{called}"
