"""A checkpoint is whole or absent; damage, absence and strangers are said in words."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from metaagentx.checkpoint import CheckpointError, Checkpoints, claim, forget
from metaagentx.learn.options import RoleOptions
from metaagentx.learn.state import create
from metaagentx.mesh import make_mesh
from metaagentx.sections import differences


def state():
    return {
        "weights": jnp.arange(96, dtype=jnp.float32).reshape(8, 12) / 7,
        "half": jnp.linspace(0, 1, 5, dtype=jnp.bfloat16),
        "step": jnp.int32(3),
    }


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state(), {"step": step, "history": [{"loss": 0.1}]})
    found, record = Checkpoints(tmp_path, keep=2).restore(state())
    assert same(found, state())
    assert record == {"step": 3, "history": [{"loss": 0.1}]}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]


def test_a_checkpoint_is_laid_out_as_it_is_asked_for(tmp_path):
    mesh = make_mesh(2, 2, 2)
    plan = NamedSharding(mesh, P("fsdp", "tensor"))
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"w": state()["weights"]}, {})
    like = jax.device_put(jnp.zeros((8, 12)), plan)
    found, _ = checkpoints.restore({"w": like})
    assert found["w"].sharding.is_equivalent_to(plan, 2)
    assert same(found["w"], state()["weights"])


def test_nothing_to_restore_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint: train first"):
        Checkpoints(tmp_path, keep=1).restore(state())
    with pytest.raises(CheckpointError, match="holds no checkpoint: train first"):
        Checkpoints(tmp_path / "nowhere", keep=1).restore(state())
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
        Checkpoints(tmp_path, keep=1).restore(state(), step=7)


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_checkpoint_is_found_and_named(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path, keep=1)
    big = {"w": jax.random.normal(jax.random.key(0), (64, 64))}
    checkpoints.save(5, big, {})
    path = largest(tmp_path / "5")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/5 .*damaged.*restore it from a copy, or train again"):
        Checkpoints(tmp_path, keep=1).restore(big)


def test_a_step_that_was_not_finished_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, state(), {"step": 1})
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    _, record = Checkpoints(tmp_path, keep=3).restore(state())
    assert record == {"step": 1}


def claim_once(workdir, settings):
    with claim(workdir, settings, differences):
        pass


def test_a_work_directory_belongs_to_one_config(tmp_path):
    def claimed(steps):
        claim_once(tmp_path / "run", {"seed": 0, "train": {"steps": steps}})

    claimed(3)
    claimed(1)  # nothing was saved: that was a try
    (tmp_path / "run" / "checkpoints").mkdir()
    claimed(1)
    with pytest.raises(
        CheckpointError, match=r"belongs to a run with another config(.|\n)*config.train.steps: 2 asked for"
    ):
        claimed(2)


HOLDER = """
import sys, time
from pathlib import Path
from metaagentx.checkpoint import claim

with claim(Path(sys.argv[1]), {}, lambda ours, theirs: []):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_work_directory_is_one_process_s_until_it_ends_or_is_killed(tmp_path):
    ours = rf"{tmp_path} is in use by process {os.getpid()} of "
    for _ in range(2):
        with claim(tmp_path, {}, differences), pytest.raises(CheckpointError, match=ours):
            claim_once(tmp_path, {})
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    wanted = rf"in use by process {holder.pid} of .*: end that or wait until it has ended, or give another --workdir"
    with pytest.raises(CheckpointError, match=wanted):
        claim_once(tmp_path, {})
    holder.kill()
    holder.wait()
    claim_once(tmp_path, {})


def test_where_there_are_no_locks_a_run_is_warned_and_goes_on(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with claim(tmp_path, {}, differences):
        assert f"{tmp_path} has no locks ([Errno 95] not supported)" in caplog.text


def test_a_work_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot be written .*give another --workdir"):
        claim_once(tmp_path / "file" / "run", {"seed": 0})


def test_what_is_restored_takes_the_place_of_what_was_there(tmp_path):
    checkpoints, old = Checkpoints(tmp_path, keep=1), state()
    checkpoints.save(1, old, {"step": 1})
    wanted = jax.device_get(old)
    restored, _ = checkpoints.restore(forget(old))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    assert same(restored, wanted)


def test_a_damaged_weight_is_found_where_weights_alone_are_read(tmp_path):
    roles = {"executor": RoleOptions()}
    states = {"shared": create({"w": jax.random.normal(jax.random.key(0), (64, 64))}, roles, "per_role", False)}
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(5, states, {})
    like = {"shared": {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)}}
    assert same(Checkpoints(tmp_path, keep=1).restore_params(like), {"shared": states["shared"].params})
    record = next(path for path in (tmp_path / "5" / "record").rglob("metadata"))
    saved = json.loads(record.read_text())
    saved["bit_sums"]["['shared'].params['w']"] += 1
    record.write_text(json.dumps(saved))
    with pytest.raises(CheckpointError, match=r"damaged in \['shared'\]\.params\['w'\]"):
        Checkpoints(tmp_path, keep=1).restore_params(like)
