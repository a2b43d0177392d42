import json
import multiprocessing
import shutil

import pytest

from metaagentx.tasks import dataset
from metaagentx.tasks.dataset import MANIFEST, folder_of, load, prepare
from metaagentx.tasks.gym import GymOptions, generate
from tests.tasks.conftest import SMALL

TINY = GymOptions(train=2, validation=1, test=1)


@pytest.fixture
def folder(task, data_dir, tmp_path):
    return shutil.copytree(folder_of(SMALL, data_dir), tmp_path / "copy")


def test_what_is_read_back_is_what_was_generated(task, data_dir):
    records = generate(SMALL)
    assert load(folder_of(SMALL, data_dir)) == records


def test_the_manifest_counts_and_digests_every_split_and_file(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    assert {split: entry["count"] for split, entry in manifest["splits"].items()} == {
        "train": 400,
        "validation": 40,
        "test": 40,
    }
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {MANIFEST}
    assert manifest["options"]["train"] == SMALL.train


def test_a_flipped_bit_in_any_file_is_named(folder):
    for path in sorted(folder.iterdir()):
        clean = path.read_bytes()
        damaged = bytearray(clean)
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=path.name):
            load(folder)
        path.write_bytes(clean)
    load(folder)


def test_a_missing_file_is_named(folder):
    victim = next(folder.glob("*train*"))
    victim.unlink()
    with pytest.raises(ValueError, match=victim.name):
        load(folder)


def test_a_changed_split_is_named_even_if_its_files_are_as_listed(task, folder, data_dir):
    records = generate(SMALL)
    records["test"].reverse()
    (folder / MANIFEST).unlink()
    dataset._write_manifest(folder, SMALL, records)
    with pytest.raises(ValueError, match="split 'test'"):
        load(folder)


def test_an_edited_manifest_is_named(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["splits"]["test"]["count"] += 1
    for text in (json.dumps(manifest), "[]", "{}", ""):
        (folder / MANIFEST).write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json is corrupt"):
            load(folder)


def test_an_interrupted_preparation_leaves_nothing_and_is_redone(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(TINY, tmp_path)
    assert list(tmp_path.iterdir()) == []

    (tmp_path / f".{folder_of(TINY, tmp_path).name}.killed").mkdir()  # what a killed process leaves
    folder_of(TINY, tmp_path).mkdir()  # a partial copy: no manifest
    assert len(load(prepare(TINY, tmp_path))["train"]) == 8


def test_two_processes_prepare_the_same_folder_at_once(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["metaagentx.tasks.dataset"])  # so that both begin at once, and import once
    processes = [context.Process(target=prepare, args=(TINY, str(tmp_path))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(load(folder_of(TINY, tmp_path))["train"]) == 8
    assert [path.name for path in tmp_path.iterdir()] == [folder_of(TINY, tmp_path).name]


def test_the_loser_of_a_race_keeps_the_winners_folder(tmp_path, monkeypatch):
    write = dataset._write_manifest

    def overtaken(built, options, records):
        write(built, options, records)
        shutil.copytree(built, folder_of(TINY, tmp_path))
        (folder_of(TINY, tmp_path) / "winner").touch()

    monkeypatch.setattr(dataset, "_write_manifest", overtaken)
    assert (prepare(TINY, tmp_path) / "winner").exists()


def test_a_second_preparation_does_no_work(task, data_dir, monkeypatch):
    monkeypatch.setattr(dataset, "generate", None)
    assert prepare(SMALL, data_dir) == folder_of(SMALL, data_dir)
