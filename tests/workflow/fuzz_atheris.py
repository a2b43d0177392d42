"""The same checks as `fuzz`, on texts that libFuzzer finds by their coverage.

pip install 'metaagentx[fuzz]'; python -m tests.workflow.fuzz_atheris runs/fuzz/corpus -max_total_time=600

The first byte of an input says which reader gets the rest, as UTF-8. What follows the program's name is libFuzzer's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["metaagentx"], enable_loader_override=False):
    from tests.workflow.readers import READERS, corpus_texts

NAMES = tuple(READERS)


def one_input(data: bytes) -> None:
    """Raises what a reader raises, or AssertionError where its result is wrong."""
    if data:
        text = data[1:].decode(errors="surrogateescape" if data[0] & 128 else "replace")
        wrong = READERS[NAMES[data[0] % len(NAMES)]](text)
        assert not wrong, wrong


def main() -> None:
    folder = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    if folder is not None and not folder.exists():
        folder.mkdir(parents=True)
        for number, text in enumerate(corpus_texts()):
            for reader in range(len(NAMES)):
                (folder / f"{number}-{NAMES[reader]}").write_bytes(bytes([reader]) + text.encode(errors="replace"))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
