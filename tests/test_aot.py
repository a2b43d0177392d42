"""The command that compiles for slices of TPUs, as a person calls it."""

from __future__ import annotations

import ast
import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import scaling
from launch import aot
from metaagentx.ahead import programs, report
from metaagentx.settings import read

ROOT = Path(__file__).parents[1]


def call(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "launch.aot", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("job", scaling.sweep(), ids=lambda job: f"{Path(job['config']).stem}-{job['topology']}")
def test_every_job_of_the_sweep_is_a_config_that_fits_its_slice(job):
    config = importlib.import_module(job["config"].removesuffix(".py").replace("/", ".")).get_config()
    for key, value in job.items():
        if key.startswith("config."):
            value = ast.literal_eval(value) if str(value).startswith("(") else value
            config.update_from_flattened_dict({key.removeprefix("config."): value})
    settings = read(config)
    mesh, pack = settings.mesh, settings.pack
    chips = math.prod(int(side) for side in job["topology"].partition(":")[2].split("x"))
    assert mesh.data * mesh.fsdp * mesh.tensor == chips
    assert pack.row_buckets[-1] % pack.micro_rows == 0
    assert pack.micro_rows % (mesh.data * mesh.fsdp) == 0
    assert programs.constants(settings).kv_heads % mesh.tensor == 0


def test_a_job_is_its_flags():
    assert aot.flags_of({"topology": "v5e:4x4", "config.mesh.fsdp": 16}) == [
        "--topology=v5e:4x4",
        "--config.mesh.fsdp=16",
    ]


RECORD = {
    "config": "c",
    "topology": "v5e:2x2",
    "program": "decode",
    "digest": "d",
    "jax": "1",
    "libtpu": "2",
    "mesh": {"data": 1, "fsdp": 4, "tensor": 1},
    "batch": {"slots": 8, "length": 64},
    "refused": "too large",
}


def test_a_record_is_found_again_by_its_program_and_replaced_by_a_newer_one(tmp_path):
    path = tmp_path / "aot.json"
    report.Records(path).keep(RECORD)
    again = report.Records(path)
    assert again.find(RECORD) == RECORD
    assert again.find(RECORD | {"digest": "e"}) is None
    again.keep(RECORD | {"digest": "e"})
    assert [record["digest"] for record in report.Records(path).all] == ["e"]


def test_the_table_takes_its_place_in_the_document_and_nothing_else(tmp_path):
    document, records = tmp_path / "scaling.md", report.Records(None)
    records.keep(RECORD)
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_table(document, records)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| 8 slots of 64 | does not fit |" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v5e:3x5"], "--topology v5e:3x5: "),
        (["--topology=v5e:2x2", "--config.mesh.fsdp=3"], "does not divide the 4 chips of v5e:2x2"),
        ([], "--topology is needed"),
    ],
)
def test_what_cannot_be_compiled_is_one_line(flags, message):
    pytest.importorskip("libtpu")
    done = call("--config=configs/tiny.py", *flags)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_programs_of_a_small_model_compile_for_a_slice_and_are_not_compiled_twice(tmp_path):
    pytest.importorskip("libtpu")
    path = tmp_path / "aot.json"
    flags = ["--config=configs/tiny.py", "--topology=v5e:2x2", "--config.mesh.fsdp=4", f"--json={path}"]
    flags += ["--config.engine.decode_attention=auto", "--config.pack.attention=auto"]
    flags += ["--config.engine.slots=8", "--config.pack.row_buckets=(8,)", "--config.pack.micro_rows=4"]
    flags += ["--config.engine.share=prefix"]
    first = call(*flags)
    assert first.returncode == 0, first.stderr
    records = json.loads(path.read_text())
    assert [record["program"] for record in records] == ["decode", "fork", "prefill", "refill", "update"]
    assert [record["attention"] for record in records] == ["paged", "paged", "dense", "paged", "splash"]
    for record in records:
        assert 0 < record["hbm"]["total"] < record["hbm"]["chip"]
        assert record["seconds"]["compute"] > 0
        assert 0 <= record["share"]["serial"] <= record["share"]["overlapped"] < 1
        assert (record["share"]["serial"] > 0) == (record["program"] != "fork")
    written = path.stat().st_mtime_ns
    second = call(*flags)
    assert second.stdout == first.stdout
    assert path.stat().st_mtime_ns == written
