"""Reads mutated texts until something breaks.

python -m tests.workflow.fuzz --scripts=1000000 --seed=1 --workers=2

Each text is a function of the seed and its number. A text fails if a reader raises, hangs, gives anything but a design
or a diagnosis with a place and a message, or takes more than 5 ms of CPU time for each 10 KB begun. Failing texts are
written to files and named; `--first=NUMBER --scripts=1` reads one again.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.workflow.mutate import Corpus, mutate
from tests.workflow.readers import READERS, TIMED, corpus_texts

SECONDS_PER_10_KB = 0.005  # of CPU time
SEVERAL = {"response": 4, "reply": 3}  # its script twice, and cut twice to find where it ends; three deliveries
HANGS = 10.0  # seconds of CPU time after which a reading is stopped
CHUNK = 500  # texts that a worker reads at a time
MOST_FILES = 20  # written for each reader and kind of failure


@dataclass(frozen=True, slots=True)
class Failure:
    """One text that broke a reader."""

    number: int  # -1 where no mutation made it
    reader: str
    kind: str  # an exception's name, "slow", "hangs" or "wrong"
    detail: str
    text: str


class Hangs(BaseException):
    """A reading that does not end; no reader can catch it."""


def _stop(*_: object) -> None:
    raise Hangs


def allowed(reader: str, text: str) -> float:
    """Seconds of CPU time that `reader` may take for `text`."""
    return SEVERAL.get(reader, 1) * SECONDS_PER_10_KB * max(1.0, len(text.encode(errors="replace")) / 10_000)


def seconds(reader: str, text: str, repeats: int = 1) -> float:
    """CPU time of reading `text`, the least of `repeats`."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        READERS[reader](text)
        best = min(best, time.process_time() - began)
    return best


def try_reader(reader: str, text: str, number: int = -1) -> Failure | None:
    """What goes wrong when `reader` reads `text`. A slow reading is measured again, to rule out noise."""
    signal.setitimer(signal.ITIMER_PROF, HANGS)
    try:
        began = time.process_time()
        wrong = READERS[reader](text)
        spent = time.process_time() - began
        if wrong:
            return Failure(number, reader, "wrong", wrong, text)
        most = allowed(reader, text)
        if reader in TIMED and spent > most:
            spent = min(spent, seconds(reader, text, 7))
            if spent > most:
                detail = f"{1000 * spent:.1f} ms where {1000 * most:.1f} ms are allowed"
                return Failure(number, reader, "slow", detail, text)
    except Hangs:
        return Failure(number, reader, "hangs", f"more than {HANGS:g} s", text)
    except Exception as error:
        return Failure(number, reader, type(error).__name__, traceback.format_exc(limit=-4), text)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


@functools.cache
def corpus() -> Corpus:
    return Corpus.of(corpus_texts())


def text_of(seed: int, number: int) -> str:
    """The mutated text of that number."""
    return mutate(random.Random(f"{seed}/{number}"), corpus())


def read_chunk(job: tuple[int, int, int]) -> tuple[int, list[Failure]]:
    """Reads the texts of (seed, first, last); the readers of other things than scripts take turns."""
    signal.signal(signal.SIGPROF, _stop)
    seed, first, last = job
    others = [reader for reader in READERS if reader != "script"]
    failures: list[Failure] = []
    for number in range(first, last):
        text = text_of(seed, number)
        for reader in ("script", others[number % len(others)]):
            failure = try_reader(reader, text, number)
            if failure is not None:
                failures.append(failure)
    return last - first, failures


def chunks(seed: int, first: int, count: int) -> Iterator[tuple[int, int, int]]:
    for start in range(first, first + count, CHUNK):
        yield seed, start, min(start + CHUNK, first + count)


def fuzz(options: argparse.Namespace, console: Console) -> tuple[int, Counter[str]]:
    """Reads texts as the command line says; returns how many, and how many failed by reader and kind."""
    done, failed, began = 0, Counter[str](), time.monotonic()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failures]} failures"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    pool = multiprocessing.get_context("spawn").Pool(options.workers) if options.workers > 1 else None
    try:
        jobs = chunks(options.seed, options.first, options.scripts)
        results = pool.imap_unordered(read_chunk, jobs) if pool else map(read_chunk, jobs)
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=options.scripts, failures=0)
            for number, found in results:
                done += number
                for failure in found:
                    failed[f"{failure.reader}: {failure.kind}"] += 1
                    if failed[f"{failure.reader}: {failure.kind}"] <= MOST_FILES:
                        write(failure, options.out, console)
                progress.update(bar, advance=number, failures=failed.total())
                if time.monotonic() - began > options.seconds:
                    break
    finally:
        if pool:
            pool.terminate()
    return done, failed


def write(failure: Failure, out: Path, console: Console) -> None:
    """Writes a failing text into `out` and prints where and why."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{failure.reader}-{failure.kind}-{failure.number}.txt"
    path.write_bytes(failure.text.encode(errors="surrogatepass"))
    lines = (f"{path}: {failure.kind}", failure.detail.strip()[-800:], repr(failure.text[:300]))
    console.print("\n".join(lines), markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scripts", type=int, default=10_000, help="how many texts")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this wall time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first text")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="where failing texts are written")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    began = time.monotonic()
    count, failed = fuzz(options, console)
    print(f"{count:,} texts in {time.monotonic() - began:.0f} s, seed {options.seed}, from number {options.first}")
    print("\n".join(f"{number} x {kind}" for kind, number in failed.most_common()) or "no failure")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
