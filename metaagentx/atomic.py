"""A file is replaced as a whole: whoever is killed while writing leaves the old one."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Put `text` in place of what `path` holds, as UTF-8, on the disk before this returns.

    Half a character, which a model may have written, becomes "?".
    """
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(text.encode("utf-8", errors="replace"))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
