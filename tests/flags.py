"""XLA's flags for tests: programs here are compiled often and run briefly, so that XLA need not optimise them."""

from __future__ import annotations

from importlib.metadata import version

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 12):
    QUICK["xla_cpu_use_fusion_emitters"] = 0  # the older ones take half the time to compile; 0.12 has no others
# A busy machine is no fault: simulated devices that wait for each other would end the process after 40 seconds.
PATIENT = {"xla_cpu_collective_call_terminate_timeout_seconds": 600, "xla_cpu_collective_timeout_seconds": 600}


def flags(devices: int, given: str = "") -> str:
    """XLA_FLAGS of that many simulated devices and quick compilation, but for what is `given`."""
    wanted = {"xla_force_host_platform_device_count": devices, **QUICK, **PATIENT}
    return " ".join([given, *(f"--{name}={value}" for name, value in wanted.items() if name not in given)]).strip()
