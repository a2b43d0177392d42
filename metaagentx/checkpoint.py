"""One atomic Orbax step holds all of a run: weights, optimiser states, counters, data cursor, seed, metric history.

A step is complete or absent: Orbax writes it beside its final name and renames it. Sums over the bits of every array
are stored with it, so that a damaged file is found when it is read and not after a day of training.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from metaagentx import atomic
from metaagentx.hosts import anywhere, from_primary, insist
from metaagentx.mesh import is_primary

T = TypeVar("T")


STORES = ("cold_start", "checkpoints")  # folders of a work directory


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged or of another shape; the message says what to do."""


class Checkpoints:
    """The checkpoints of one run, under `directory`. Every step is (a pytree of arrays, a JSON record)."""

    def __init__(self, directory: str | epath.Path, *, keep: int) -> None:
        self.directory = epath.Path(directory).resolve()
        self._options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=True)
        self._opened: ocp.CheckpointManager | None = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Opened, and its directory made, when first used."""
        if self._opened is None:
            self._opened = ocp.CheckpointManager(self.directory, options=self._options)
        return self._opened

    def steps(self) -> list[int]:
        """All complete steps, oldest first. Looking makes no directory."""
        return sorted(self._manager.all_steps()) if self.directory.exists() else []

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
        """Write one step. `state`: a pytree of arrays. `record`: JSON values. Does nothing if the step exists."""
        if step in self.steps():
            return
        sums = {name: int(value) for name, value in jax.device_get(_bit_sums(_named(state))).items()}
        record = {"bit_sums": sums, "record": dict(record)}
        self._manager.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        )

    def restore(self, like: T, step: int | None = None) -> tuple[T, dict[str, Any]]:
        """The state and record of `step` (default: the newest), laid out and sharded as `like`: arrays, or `forget`'s.

        Raises CheckpointError where there is none, or what is there cannot be read or is not what was written.
        """
        return self._read(ocp.args.StandardRestore(like), step, _named, part=False)

    def restore_params(self, like: Mapping[str, Any]) -> dict[str, Any]:
        """Of the newest step, which holds `TrainState`s by name, the `params` of those in `like`; nothing else is read.

        `like`: shapes with shardings; one that has none lives on the first device. Raises as `restore` does.
        """
        home = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        item = {name: {"params": params} for name, params in like.items()}
        item = jax.tree.map(lambda x: x if x.sharding else x.update(sharding=home), item)
        how = ocp.checkpoint_utils.construct_restore_args(item)

        def named(states: Any) -> dict[str, jax.Array]:
            """By the names that they had in whole states."""
            return {
                f"[{name!r}].params{place}": leaf
                for name, state in states.items()
                for place, leaf in _named(state["params"]).items()
            }

        args = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
        found, _ = self._read(args, None, named, part=True)
        return {name: state["params"] for name, state in found.items()}

    def _read(
        self, args: Any, step: int | None, named: Callable[[Any], dict[str, jax.Array]], part: bool
    ) -> tuple[Any, dict[str, Any]]:
        """What `args` ask for of a step's state, checked, and its record; `part`: whether that is less than all."""
        step = self.latest() if step is None else step
        if step is None or step not in self.steps():
            wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{self.directory} holds {wanted}: train first, or give another work directory")
        path = self.directory / str(step)
        older = any(other < step for other in self.steps())
        way_on = f"delete {path} to go on from an older step" if older else "restore it from a copy, or train again"
        advice = f"if the config is the one it was written with, it is damaged: {way_on}"

        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=args, record=ocp.args.JsonRestore()))
        except Exception as error:  # Orbax raises many kinds: whatever it is, the reader needs the path and a way on
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"the checkpoint {path} cannot be read ({reason}); {advice}") from error

        state, saved = restored["state"], restored["record"]
        found = {name: int(value) for name, value in jax.device_get(_bit_sums(named(state))).items()}
        sums = {name: saved["bit_sums"].get(name) for name in found} if part else saved["bit_sums"]
        damaged = sorted(name for name, value in sums.items() if found.get(name) != value)
        if damaged or len(found) != len(sums):
            raise CheckpointError(f"the checkpoint {path} is damaged in {', '.join(damaged[:3])}; {advice}")
        return state, saved["record"]

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


def digest(state: Any) -> str:
    """A hash of every bit of a pytree of arrays, whatever its sharding."""
    sums = {name: int(value) for name, value in jax.device_get(_bit_sums(_named(state))).items()}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def forget(tree: T) -> T:
    """Shapes, dtypes and shardings of `tree`, whose arrays are freed: what is restored takes their place in memory."""

    def free(x: jax.Array) -> jax.ShapeDtypeStruct:
        like = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        x.delete()
        return like

    return jax.tree.map(free, tree)


@contextlib.contextmanager
def claim(workdir: Path, settings: Mapping[str, Any], differences: Any) -> Iterator[None]:
    """Make `workdir` this run's own: write its settings there, or check that those there are the same.

    Where nothing was saved yet, other settings take the place of those there: a first try that failed binds nobody.
    While the context lasts nobody else can claim it; of several processes the first one sees to that.

    Raises:
      CheckpointError: the directory cannot be written, is in use, belongs to a run with other settings, or is not one
        that all processes see. Every process raises it.
      HostsError: a process has other settings.
    """
    insist("config", settings, "start every process with the same command")
    with contextlib.ExitStack() as held:
        complaint = ""
        if is_primary():
            try:
                held.enter_context(_held(workdir))
                _claim(workdir, settings, differences)
            except CheckpointError as error:
                complaint = str(error)
        if complaint := from_primary(complaint):
            raise CheckpointError(complaint)
        if anywhere(not (workdir / "config.json").exists()):
            raise CheckpointError(
                f"not every process sees {workdir}: give a --workdir that all share (a file store, a mounted bucket)"
            )
        yield


@contextlib.contextmanager
def _held(workdir: Path) -> Iterator[None]:
    """Lock `workdir`. However this process ends, the system unlocks it."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / "lock").open("a+")
    except OSError as error:
        raise CheckpointError(
            f"the work directory {workdir} cannot be written ({error}); give another --workdir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or "another process"
            raise CheckpointError(
                f"the work directory {workdir} is in use by {holder}: "
                "end that or wait until it has ended, or give another --workdir"
            ) from error
        except OSError as error:  # a mounted bucket, say
            logging.warning("%s has no locks (%s): see to it that nobody else trains there", workdir, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}")
        file.flush()
        yield


def _claim(workdir: Path, settings: Mapping[str, Any], differences: Any) -> None:
    path = workdir / "config.json"
    if path.exists() and any((workdir / name).exists() for name in STORES):
        try:
            theirs = json.loads(path.read_text())
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}); restore it or give another --workdir") from error
        changed = differences(dict(settings), theirs)
        if changed:
            listed = "\n  ".join(changed[:8])
            raise CheckpointError(
                f"{workdir} belongs to a run with another config; give another --workdir, or change back:\n  {listed}"
            )
        return
    atomic.write(path, json.dumps(settings, indent=2) + "\n")


def claimed(workdir: Path) -> dict[str, Any]:
    """The plain settings of the run that a work directory belongs to. Raises CheckpointError if it is none."""
    path = workdir / "config.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        reason = f"{workdir} is no work directory of a run (it has no config.json): train there first"
    except ValueError as error:
        reason = f"{path} is damaged ({error}); restore it or train in another work directory"
    raise CheckpointError(reason)


def _named(tree: Any) -> dict[str, jax.Array]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@jax.jit
def _bit_sums(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """For each array the sum of its bits read as unsigned integers, modulo 2^32: exact, whatever its sharding."""

    def bit_sum(x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        if x.dtype == jnp.bool_:
            x = x.astype(jnp.uint8)
        words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
        # Multiplying by the (odd) place makes the sum see swapped elements too.
        place = 2 * jax.lax.iota(jnp.uint32, words.size).reshape(words.shape) + 1
        return jnp.sum(words.astype(jnp.uint32) * place, dtype=jnp.uint32)

    return {name: bit_sum(leaf) for name, leaf in leaves.items()}
