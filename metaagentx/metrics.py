"""What a run leaves behind in numbers: JSON lines that survive kills and rewinds, TensorBoard, and progress.

`metrics.jsonl` is the record, one object a line: {"step", "phase", "time", flat metric names}. TensorBoard's files
are a view of it and are written anew whenever it is rewound.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

from metaagentx import atomic

COLD_START = "cold_start"


class JsonLines:
    """A file of JSON objects, one a line. A last line torn by a kill is cut off when the file is opened for writing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a torn last one is left out. A broken line elsewhere is a ValueError that names it."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number}: not JSON ({error})") from None
            if not isinstance(record, dict):
                raise ValueError(f"{self.path}, line {number}: expected a JSON object, not {type(record).__name__}")
            records.append(record)
        return records

    def repair(self) -> None:
        """Cut a torn last line."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)

    def append(self, record: Mapping[str, Any]) -> None:
        """One more line, handed to the operating system before this returns. Values that JSON lacks are errors."""
        with self.path.open("ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def keep(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
        """Drop every record that `predicate` refuses, in one atomic replacement of the file."""
        self.replace([record for record in self.read() if predicate(record)])

    def replace(self, records: Sequence[Mapping[str, Any]]) -> None:
        """These records and no others, in one atomic replacement of the file."""
        atomic.write(self.path, "".join(json.dumps(record) + "\n" for record in records))


class MetricWriter:
    """Writes `metrics.jsonl` and, if asked, TensorBoard's files under `tensorboard/` of a work directory.

    Args:
      active: False on every process but the first; then nothing is written.
      require_finite: a metric that is NaN or infinite raises FloatingPointError, on every process: no one waits for
        one that has stopped. Otherwise it is written as null.
    """

    def __init__(
        self, workdir: str | Path, *, tensorboard: bool = True, active: bool = True, require_finite: bool = True
    ) -> None:
        self._active = active
        self._require_finite = require_finite
        self._events = Path(workdir) / "tensorboard" if tensorboard else None
        self._writer: Any = None  # of TensorBoard's files
        self._lines = JsonLines(Path(workdir) / "metrics.jsonl")
        if active:
            self._lines.path.parent.mkdir(parents=True, exist_ok=True)
            self._lines.repair()
            self._replay()

    def write(self, step: int, metrics: Mapping[str, SupportsFloat], *, phase: str) -> None:
        """Append the metrics of one step. Values are numbers or arrays of one element."""
        record: dict[str, Any] = {"step": int(step), "phase": phase, "time": round(time.time(), 3)}
        for name, value in metrics.items():
            if name in ("step", "phase", "time"):
                raise ValueError(f"a metric may not be called {name!r}: the line has a field of that name")
            number = float(value)
            if not math.isfinite(number) and self._require_finite:
                raise FloatingPointError(f"metric {name!r} is {number} at step {step} (phase {phase!r})")
            record[name] = number if math.isfinite(number) else None
        if self._active:
            self._lines.append(record)
            self._show(record)

    def rewind(self, step: int, *, keep: Sequence[str] = (COLD_START,)) -> None:
        """Forget every line after `step`, as a run does that goes on from the checkpoint of that step.

        Lines of the phases in `keep` stay whatever their step: the cold start counts steps of its own. A cold start
        that itself goes on from a checkpoint keeps none.
        """
        if self._active:
            self._lines.keep(lambda record: record["phase"] in keep or record["step"] <= step)
            self._replay()

    def restore(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Make the record what a checkpoint says it was."""
        if self._active:
            self._lines.replace(history)
            self._replay()

    def history(self) -> list[dict[str, Any]]:
        """Every line so far."""
        return self._lines.read()

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush TensorBoard's file; the lines are on disk already."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _replay(self) -> None:
        """Make TensorBoard's files a picture of the lines."""
        if self._events is None:
            return
        self.close()
        shutil.rmtree(self._events, ignore_errors=True)
        from tensorboardX import SummaryWriter  # a second or more where PyTorch is installed, which it then imports

        self._writer = SummaryWriter(str(self._events))
        for record in self._lines.read():
            self._show(record)

    def _show(self, record: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        prefix = "cold_start/" if record["phase"] == COLD_START else ""
        for name, value in record.items():
            if name not in ("step", "phase", "time") and value is not None:
                self._writer.add_scalar(prefix + name, value, record["step"], record["time"])


def duration(seconds: float) -> str:
    """Seconds as people say them: "48 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Where a run stands: a bar on a terminal, elsewhere one plain line every `every` seconds and at each evaluation.

    Args:
      total: steps in all.
      start: steps done before (a resumed run); time left is estimated from the steps done here.
      active: False on every process but the first.
    """

    def __init__(
        self, total: int, *, start: int = 0, stream: TextIO | None = None, every: float = 10.0, active: bool = True
    ) -> None:
        self._total, self._start, self._every, self._active = total, start, every, active
        self._stream = stream if stream is not None else sys.stderr
        self._began, self._printed = time.monotonic(), -math.inf
        self._phase, self._accuracy = "", ""
        self._first: tuple[float, float, int] | None = None  # share, time and number of the first step seen done
        self._bar: RichProgress | None = None
        if active and self._stream.isatty():
            columns = (TextColumn("{task.description:<10}"), BarColumn(None), MofNCompleteColumn())
            self._bar = RichProgress(*columns, TextColumn("{task.fields[text]}"), console=Console(file=self._stream))
            self._task = self._bar.add_task("", total=total, completed=start, text="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(
        self,
        step: int,
        *,
        phase: str,
        accuracy: float | None = None,
        tokens_per_second: float | None = None,
        share: float | None = None,
    ) -> None:
        """`step` steps are done. `accuracy` is the held-out accuracy where this step evaluated it, in [0, 1].

        `share` of the work is done, where the number of steps does not tell: a run that ends with its token budget.
        """
        if not self._active:
            return
        if accuracy is not None:
            self._accuracy = f"held-out accuracy {accuracy:.1%}"
        parts = [self._accuracy] if self._accuracy else []
        if tokens_per_second is not None:
            parts.append(f"{tokens_per_second:,.0f} tokens/s")
        now = time.monotonic()
        done = step / max(self._total, 1) if share is None else share
        if self._first is None and step > self._start:
            self._first = done, now, step  # the first step compiles: it tells nothing of those to come
        if step >= self._total:
            parts.append(f"took {duration(now - self._began)}")
        elif self._first is not None and step - self._first[2] >= 2 and done > self._first[0]:
            left = (now - self._first[1]) / (done - self._first[0]) * max(1 - done, 0)
            parts.append(f"{duration(left)} left")
        name = phase.replace("_", " ")
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=name, text=" · ".join(parts))
            return
        due = now - self._printed >= self._every or accuracy is not None or phase != self._phase or step >= self._total
        if due:
            print(" · ".join([f"{name} {step}/{self._total}", *parts]), file=self._stream, flush=True)
            self._printed, self._phase = now, phase
