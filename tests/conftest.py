"""Every test runs on eight simulated CPU devices unless an accelerator is asked for, and may not promote ranks.

Programs here are compiled often and run briefly, so that XLA need not optimise them: that halves the suite's time.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
flags = os.environ.get("XLA_FLAGS", "")
for name, value in (("xla_force_host_platform_device_count", 8), ("xla_backend_optimization_level", 0)):
    if name not in flags:
        flags += f" --{name}={value}"
os.environ["XLA_FLAGS"] = flags
