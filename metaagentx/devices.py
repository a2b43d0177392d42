"""Which devices a run computes on, and where what was compiled for them is kept."""

from __future__ import annotations

import os
from pathlib import Path

import jax
from jax.sharding import Mesh

from metaagentx.mesh import make_mesh
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings
from metaagentx.transfer import own_part, regroup


def meshes(settings: Settings) -> tuple[Mesh | None, Mesh | None]:
    """The mesh that trains, None for a single device; and the one that samples, None for the same.

    Raises SettingsError if that many devices cannot be laid out so.
    """
    devices, options = jax.devices(), settings.generation
    rest = len(devices) - options.devices
    if options.devices and jax.process_count() > 1:
        raise SettingsError(f"config.generation.devices ({options.devices}) sets devices of a single process apart")
    if rest < 1:
        raise SettingsError(f"config.generation.devices ({options.devices}) leaves none of {len(devices)} to train on")
    try:
        sizes = settings.mesh.sizes(rest)
        if not options.devices and rest == 1:
            return None, None
        mesh = make_mesh(*sizes, devices[:rest])
        if options.per_host:
            own = own_part(regroup(mesh, options.tensor), jax.process_index())
            return mesh, None if own == mesh else own
        if not options.devices:
            return mesh, None
        regroup(mesh, options.tensor)
        return mesh, make_mesh(options.devices // options.tensor, 1, options.tensor, devices[rest:])
    except ValueError as error:
        raise SettingsError(f"config.{error}; choose others with --config.mesh.fsdp=... and the like") from error


def keep_compilations() -> None:
    """Compiled programs are kept on disk, so that the next run starts warm (JAX_COMPILATION_CACHE_DIR says where)."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/metaagentx/jax").expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
