"""Compile a run's programs ahead of time for a TPU slice, and say what they will need and how fast they will be.

    python -m launch.aot --config=configs/qwen3_8b.py --topology=v5p:4x4x4 [--json=PATH] [--largest]

(`launch.aot` sets what libtpu wants in the environment.) How the numbers are made: docs/scaling.md.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from jax.sharding import Mesh
from ml_collections import config_flags
from rich.console import Console

from metaagentx import command_line
from metaagentx.ahead import estimate, programs, report
from metaagentx.ahead.chips import Slice, describe
from metaagentx.ahead.hlo import Program
from metaagentx.memory import too_large
from metaagentx.mesh import make_mesh
from metaagentx.options import MeshOptions
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings, read

TOPOLOGY = flags.DEFINE_string("topology", None, "The slice: v5e:4x4, v5p:4x4x4, v6e:8x8 and the like.")
PROGRAM = flags.DEFINE_multi_enum("program", list(programs.NAMES), programs.NAMES, "Which programs; all unless given.")
LARGEST = flags.DEFINE_bool("largest", False, "Also search for the largest batch that fits: a few more compilations.")
JSON = flags.DEFINE_string("json", None, "Where records are kept; programs that are there already are skipped.")
AGAIN = flags.DEFINE_bool("again", False, "Compile also what the records hold.")
HLO = flags.DEFINE_string("hlo", None, "Directory in which to leave the text of what the compiler made.")
DOCUMENT = flags.DEFINE_string("document", None, "Only write the table of all records into this file.")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """One configuration on one slice."""

    config: str  # its name: "qwen3_8b"
    settings: Settings
    where: Slice
    mesh: Mesh


def main(arguments: list[str]) -> None:
    """Parse the flags; compile, print and keep every program's record."""
    if len(arguments) > 1:
        raise app.UsageError(f"unknown argument {arguments[1]!r}")
    with command_line.errors_in_words():
        records = report.Records(Path(JSON.value) if JSON.value else None)
        if DOCUMENT.value:
            report.write_table(Path(DOCUMENT.value), records)
            return
        task, screen = prepare(), Console(highlight=False)
        with jax.set_mesh(task.mesh):
            for name in (each for each in programs.compiled_at_start(task.settings) if each in PROGRAM.value):
                record = study(task, name, records, screen)
                if LARGEST.value:
                    largest(task, name, record, records, screen)


def prepare() -> Task:
    """What the flags ask for. Raises SettingsError."""
    settings = read(command_line.CONFIG.value)
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    if not TOPOLOGY.value:
        raise SettingsError("--topology is needed: the slice to compile for, as in v5p:4x4x4")
    where = describe(TOPOLOGY.value)
    return Task(Path(file.partition(":")[0]).stem, settings, where, lay(settings.mesh, where))


def lay(options: MeshOptions, where: Slice) -> Mesh:
    """The settings' mesh over the chips of a slice. Raises SettingsError where it does not fit."""
    others, chips = options.fsdp * options.tensor, len(where.devices)
    if options.data == 0 and chips % others:
        raise SettingsError(f"config.mesh.fsdp * tensor = {others} does not divide the {chips} chips of {where.name}")
    try:
        return make_mesh(options.data or chips // others, options.fsdp, options.tensor, devices=where.devices)
    except NotImplementedError:
        sizes = f"{options.data or chips // others} x {options.fsdp} x {options.tensor}"
        raise SettingsError(f"config.mesh of {sizes} cannot be laid along the sides of {where.name}") from None
    except ValueError as error:
        raise SettingsError(f"config.mesh on {where.name}: {error}") from error


def study(task: Task, name: programs.Name, records: report.Records, screen: Console) -> Record:
    """The record of one program: from the file, or compiled now, kept and printed."""
    lowered = programs.lower(name, task.settings, task.mesh)
    key = {
        "config": task.config,
        "topology": task.where.name,
        "program": name,
        # The program itself says whether a record is still true: settings or code that do not change it do not count.
        "digest": hashlib.sha256(lowered.as_text().encode()).hexdigest()[:16],
        "jax": jax.__version__,
        "libtpu": version("libtpu"),
    }
    known = records.find(key)
    if known is None or AGAIN.value:
        begun = time.perf_counter()
        with screen.status(f"{name} of {task.config} for {task.where.name}: compiling"):
            known = {**key, **shape_of(task, name), **measure(task, name, lowered)}
        known["compile_seconds"] = round(time.perf_counter() - begun, 1)
        records.keep(known)
    screen.print(report.line(known), soft_wrap=True)
    return known


def shape_of(task: Task, name: programs.Name) -> Record:
    """What of the settings decides a program's size."""
    settings, mesh = task.settings, dict(task.mesh.shape)
    attention = programs.attention(name, settings, task.mesh)
    if name == "update":
        pack = settings.pack
        rows = pack.row_buckets[-1]
        batch = {"rows": rows, "micro_rows": min(pack.micro_rows, rows), "length": pack.width}
        return {"mesh": mesh, "batch": batch, "remat": pack.remat, "attention": attention, "chunk": pack.chunk}
    engine = settings.engine
    if name == "decode":
        return {"mesh": mesh, "batch": {"slots": engine.slots, "length": engine.capacity}, "attention": attention}
    rows, length = rows_of(task, name)
    batch = {"rows": rows, "length": length, "slots": engine.slots}
    return {"mesh": mesh, "batch": batch, "attention": attention}


def rows_of(task: Task, name: programs.Name) -> tuple[int, int]:
    """Rows, and tokens of each, of a program that fills slots."""
    calls, engine = programs.engine_calls(task.settings, task.mesh), task.settings.engine
    if name == "prefill":
        return calls.largest
    if name == "fork":
        return engine.admit_buckets[-1], engine.prompt_buckets[-1]
    return calls.shards * calls.blocks[-1], engine.share_unit


def measure(task: Task, name: programs.Name, lowered: jax.stages.Lowered) -> Record:
    """Compile, and read off memory, work and time; of a program that does not fit, only what it would need."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not too_large(error):
            raise
        return {"refused": " ".join(str(error).split())[:300]}
    memory: Any = compiled.memory_analysis()
    text = str(compiled.as_text())
    if HLO.value:
        Path(HLO.value).mkdir(parents=True, exist_ok=True)
        (Path(HLO.value) / f"{task.config}-{task.where.name.replace(':', '-')}-{name}.txt").write_text(text)
    cost = Program(text).cost()
    cost.ragged /= task.mesh.shape[
        "tensor"
    ]  # which cuts the experts: a chip computes its own alone, under an even load
    seconds = estimate.seconds(cost, task.where, programs.constants(task.settings))
    work = model_flops(task, name)
    ideal = work / (len(task.where.devices) * task.where.chip.peak)
    hbm = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "waiting": programs.waiting(name, task.settings, task.mesh),
    }
    return {
        "hbm": hbm | {"total": sum(hbm.values()), "chip": task.where.chip.hbm},
        "flops": cost.products + cost.kernels + cost.ragged + estimate.FILLED * cost.attended,
        "bytes": cost.hbm + estimate.FILLED * cost.cached,
        "received": sum(cost.collectives.values()),
        "seconds": asdict(seconds) | {"overlapped": seconds.overlapped, "serial": seconds.serial},
        "model_flops": work,
        "share": {"overlapped": ideal / seconds.overlapped, "serial": ideal / seconds.serial},
    }


def largest(task: Task, name: programs.Name, first: Record, records: report.Records, screen: Console) -> None:
    """Find the largest batch that fits (rows of a pass, prompts, slots), add it to the record `first`, and print it.

    What a program needs is a line in its batch: it is drawn through two compiled sizes, and the size at which it meets
    the chip's memory is compiled too, or smaller ones until one fits.
    """
    if "largest" in first and not AGAIN.value:
        return
    unit = task.mesh.shape["data"] * task.mesh.shape["fsdp"]
    start = first["batch"][{"update": "micro_rows", "decode": "slots"}.get(name, "rows")]

    def need(size: int) -> int | None:
        """Bytes that a batch of `size` needs on a chip; None if the compiler refuses it."""
        if size == start and "hbm" in first:
            return int(first["hbm"]["total"])
        tried = replace(task, settings=resized(task.settings, name, size))
        with screen.status(f"{name} of {task.config} for {task.where.name}: compiling for {size}"):
            found = measure(tried, name, programs.lower(name, tried.settings, task.mesh))
        return int(found["hbm"]["total"]) if "hbm" in found else None

    known: dict[int, int] = {}
    for size in (start, 2 * start, max(start // 2 // unit, 1) * unit, unit):
        if len(known) < 2 and size not in known and (used := need(size)) is not None:
            known[size] = used
    best = max((size for size, used in known.items() if used <= task.where.chip.hbm), default=0)
    if len(known) == 2:
        (a, low), (b, high) = sorted(known.items())
        room = int((task.where.chip.hbm - low) * (b - a) / max(high - low, 1)) + a
        for size in range(room // unit * unit, best, -unit):
            if (used := need(size)) is not None and used <= task.where.chip.hbm:
                best = size
                break
    records.keep(first | {"largest": best})
    screen.print(f"  largest batch that fits: {best}")


def resized(settings: Settings, name: programs.Name, size: int) -> Settings:
    """The settings with a batch of `size`: an update has two passes of so many rows."""
    if name == "update":
        return replace(settings, pack=replace(settings.pack, micro_rows=size, row_buckets=(2 * size,)))
    change = {"slots": size} if name == "decode" else {"admit_buckets": (size,)}
    return replace(settings, engine=replace(settings.engine, **change))


def model_flops(task: Task, name: programs.Name) -> float:
    """FLOPs that the model asks for, on all chips together; of `decode`, for one step over slots as full as assumed.

    `refill` too attends to beginnings of which so much is there; `fork` asks for none.
    """
    settings, model = task.settings, programs.constants(task.settings)
    if name == "update":
        rows = settings.pack.row_buckets[-1] * len(programs.batches(settings, task.mesh)[0])
        return estimate.training_flops(model, rows, settings.pack.width)
    engine = settings.engine
    if name == "prefill":
        return estimate.forward_flops(model, *rows_of(task, name))
    if name == "fork":
        return 0.0
    if name == "refill":
        return estimate.decode_flops(model, math.prod(rows_of(task, name)), estimate.FILLED * engine.prompt_buckets[-1])
    return estimate.decode_flops(model, engine.slots, estimate.FILLED * engine.capacity)


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse)
