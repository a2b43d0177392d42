"""Where a reply's text first holds one of some strings, also when they span tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

HALF = "\ufffd"  # what decoders give for bytes that are no whole character (yet)
