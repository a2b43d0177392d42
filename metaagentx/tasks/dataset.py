"""Questions on disk: prepared once into ArrayRecord by tensorflow-datasets (without TensorFlow), verified when read.

A prepared folder is complete or absent: it is built beside its place and moved there in one rename, so an interrupted
preparation leaves nothing that looks finished, and of two processes that prepare at once the first to finish wins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from metaagentx.tasks.gym import SPLITS, GymOptions, Record, generate

MANIFEST = "manifest.json"
_AGAIN = "remove the folder to have it prepared again"


class GymQuestions(tfds.core.GeneratorBasedBuilder):
    """The records of `gym.generate`, in their order."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict[str, Any]] = {}  # nothing is downloaded

    def __init__(self, records: dict[str, list[Record]], data_dir: str) -> None:
        self._records = records
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        fields = {field.name: tfds.features.Text() for field in dataclasses.fields(Record)}
        features = tfds.features.FeaturesDict(fields)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, str]]]:
        for number, record in enumerate(self._records[split]):
            yield number, dataclasses.asdict(record)


def prepare(options: GymOptions, data_dir: str | Path) -> Path:
    """The folder with the questions of `options` under `data_dir` (a local file system), made if it is not there."""
    target = folder_of(options, data_dir)
    if (target / MANIFEST).exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not (target / MANIFEST).exists():
        shutil.rmtree(target)  # what is moved into place has a manifest: this is a partial copy
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        records = generate(options)
        builder = GymQuestions(records, data_dir=scratch)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder.download_and_prepare()  # two seconds of progress bars
        built = Path(builder.data_dir)
        _write_manifest(built, options, records)
        try:
            os.rename(built, target)
        except OSError:
            if not (target / MANIFEST).exists():  # else another process was first
                raise
    return target


def folder_of(options: GymOptions, data_dir: str | Path) -> Path:
    """Where the questions of `options` live: equal options, equal folder."""
    return Path(data_dir) / f"gym-{_hash_json(dataclasses.asdict(options))[:12]}"


def load(folder: Path) -> dict[str, list[Record]]:
    """All records by split, in stored order. Raises ValueError, naming the file or split, if anything was changed."""
    manifest = read_manifest(folder)
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.exists():
            raise ValueError(f"{path} is missing; {_AGAIN}")
        if _hash_file(path) != wanted:
            raise ValueError(f"{path} is corrupt: its sha256 is not the manifest's; {_AGAIN}")
    builder = tfds.builder_from_directory(str(folder))
    splits = {split: _read(builder.as_data_source(split)) for split in SPLITS}
    for split, records in splits.items():
        if _hash_records(records) != manifest["splits"][split]["sha256"]:
            raise ValueError(f"split {split!r} of {folder} is not what its manifest says; {_AGAIN}")
    return splits


def _read(source: Any) -> list[Record]:
    rows = source.__getitems__(list(range(len(source))))
    return [Record(**{name: value.decode() for name, value in row.items()}) for row in rows]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a prepared folder says of itself: options, and sha256 and size of every file and split."""
    path = folder / MANIFEST
    if not path.exists():
        raise ValueError(f"{path} is missing: {folder} was not prepared")
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is corrupt; {_AGAIN}") from error
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _hash_json(manifest):
        raise ValueError(f"{path} is corrupt: its sha256 is not its own; {_AGAIN}")
    return manifest


def _write_manifest(folder: Path, options: GymOptions, records: dict[str, list[Record]]) -> None:
    manifest = {
        "options": dataclasses.asdict(options),
        "files": {path.name: _hash_file(path) for path in sorted(folder.iterdir())},
        "splits": {split: {"count": len(rows), "sha256": _hash_records(rows)} for split, rows in records.items()},
    }
    (folder / MANIFEST).write_text(json.dumps({**manifest, "sha256": _hash_json(manifest)}, indent=2) + "\n")


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_records(records: Sequence[Record]) -> str:
    state = hashlib.sha256()
    for record in records:
        state.update(json.dumps(dataclasses.astuple(record)).encode() + b"\n")
    return state.hexdigest()
