"""Every test runs on eight simulated CPU devices unless an accelerator is asked for, and may not promote ranks.

What one test compiled, no other process of the session compiles again.
"""

import os
import tempfile

import pytest

from tests.flags import flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["XLA_FLAGS"] = flags(8, os.environ.get("XLA_FLAGS", ""))


def pytest_configure(config: pytest.Config) -> None:
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # it is in those of workers
        programs = tempfile.TemporaryDirectory(prefix="metaagentx-programs-")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs.name
        config.add_cleanup(programs.cleanup)
