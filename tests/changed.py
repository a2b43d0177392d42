"""Settings with other values at some keys."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from metaagentx.sections import plain
from metaagentx.settings import Settings, read


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """`settings` with `values` by their dotted keys, one after the other; these are copied, none is written to.

    A later key may be within an earlier value.
    """
    config = plain(settings)
    for key, value in values.items():
        *path, last = key.split(".")
        section = config
        for name in path:
            section = section[name]
        section[last] = copy.deepcopy(value)
    return read(config)
