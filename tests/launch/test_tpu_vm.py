from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch import tpu_vm

STUB = f"""#!{sys.executable} -IS
import json, pathlib, sys
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
answers = json.loads((here / "answers").read_text())
for verb, queue in answers.items():
    if verb in sys.argv and (verb != "ssh" or any("worker.sh" in word for word in sys.argv)) and queue:
        answer = queue.pop(0)
        (here / "answers").write_text(json.dumps(answers))
        if answer == "ABSENT":
            sys.exit("ERROR: NOT_FOUND: no such node")
        if isinstance(answer, int):
            sys.exit(answer)
        print(answer)
"""
FLAGS = ["--name=mx", "--zone=us-central2-b"]
RUN = ["run", *FLAGS, "--type=v4-32", "--poll=0", "--spot"]


class Cloud:
    """A gcloud that writes down how it was called and answers from lists: states for describe, exit codes else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "gcloud").write_text(STUB)
        (folder / "gcloud").chmod(0o755)
        git = folder / "git"  # the real one would pack the whole checkout
        git.write_text("#!/bin/sh\nexit 0\n")
        git.chmod(0o755)

    def answer(self, **answers: list[str | int]) -> None:
        (self.folder / "answers").write_text(json.dumps(answers))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    @property
    def verbs(self) -> list[str]:
        return [call[3] for call in self.calls if call[3] != "describe"]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Cloud(tmp_path)


def test_a_run_creates_waits_copies_and_starts_the_same_command_on_every_worker(cloud: Cloud) -> None:
    cloud.answer(describe=["ABSENT", "CREATING", "READY"])
    assert tpu_vm.main([*RUN, "--", "--config=configs/tiny.py", "--workdir=/mnt/b/a b", "--config.x=$(reboot)"]) == 0
    assert cloud.verbs == ["create", "scp", "ssh", "ssh"]
    assert all("--zone=us-central2-b" in call for call in cloud.calls)
    assert [word for word in cloud.calls[0] if word.startswith("--spot")] == []
    create, start = cloud.calls[1], cloud.calls[-1]
    assert {"--accelerator-type=v4-32", "--spot"} <= set(create)
    assert "--worker=all" in start
    remote = next(word for word in start if word.startswith("--command=")).removeprefix("--command=")
    assert shlex.split(remote) == [
        *("bash", "metaagentx/launch/worker.sh", "python3.11", "-m", "metaagentx.train", "--distributed"),
        *("--config=configs/tiny.py", "--workdir=/mnt/b/a b", "--config.x=$(reboot)"),
    ]


def test_a_preempted_run_begins_again_on_a_tpu_of_the_same_name(cloud: Cloud) -> None:
    states: list[str | int] = ["ABSENT", "READY", "PREEMPTED", "PREEMPTED", "DELETING", "ABSENT", "READY"]
    cloud.answer(describe=states, ssh=[255, 0])
    assert tpu_vm.main([*RUN, "--", "--workdir=/mnt/b/a"]) == 0
    once = ["create", "scp", "ssh", "ssh"]
    assert cloud.verbs == [*once, "delete", *once]
    created = [call for call in cloud.calls if call[3] == "create"]
    assert created[0] == created[1]


def test_a_program_that_was_told_to_stop_goes_on_whatever_the_state_still_says(cloud: Cloud) -> None:
    cloud.answer(describe=["READY", "READY", "READY", "ABSENT", "READY"], ssh=[75, 0])
    assert tpu_vm.main([*RUN, "--", "--workdir=/mnt/b/a"]) == 0
    assert cloud.verbs == ["scp", "ssh", "ssh", "delete", "create", "scp", "ssh", "ssh"]


def test_a_failing_program_is_not_started_again(cloud: Cloud) -> None:
    cloud.answer(describe=["READY", "READY", "READY"], ssh=[7])
    assert tpu_vm.main([*RUN, "--", "--workdir=/mnt/b/a"]) == 7
    assert cloud.verbs == ["scp", "ssh", "ssh"]


def test_a_tpu_that_is_always_lost_ends_after_the_given_attempts(cloud: Cloud) -> None:
    cloud.answer(describe=["ABSENT", "FAILED", "FAILED", "ABSENT"] * 2)
    assert tpu_vm.main([*RUN, "--attempts=2", "--", "--workdir=/mnt/b/a"]) == 1
    assert cloud.verbs.count("create") == 2


def test_a_queued_resource_is_asked_for_under_the_same_name(cloud: Cloud) -> None:
    cloud.answer(describe=["ABSENT", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    assert tpu_vm.main([*RUN, "--queued", "--no-distributed", "--", "--workdir=/mnt/b/a"]) == 0
    create = cloud.calls[1]
    assert create[:5] == ["compute", "tpus", "queued-resources", "create", "mx"]
    assert "--node-id=mx" in create
    assert "--distributed" not in cloud.calls[-1][-1]


def test_what_gcloud_cannot_describe_is_an_error_and_creates_nothing(cloud: Cloud) -> None:
    cloud.answer(describe=[1])
    with pytest.raises(SystemExit, match="gcloud cannot describe mx"):
        tpu_vm.main([*RUN, "--", "--workdir=/mnt/b/a"])
    assert len(cloud.calls) == 1


def dry_run(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert tpu_vm.main([*argv, "--dry_run", "--", "--workdir=/mnt/b/a b"]) == 0
    return [line.removeprefix("+ ") for line in capsys.readouterr().out.splitlines()]


def test_a_dry_run_prints_what_a_run_would_do_and_calls_nothing(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.answer()
    printed = dry_run(capsys, *RUN)
    assert not (cloud.folder / "calls").exists()
    cloud.answer(describe=["ABSENT", "READY"])
    tpu_vm.main([*RUN, "--", "--workdir=/mnt/b/a b"])
    asked = [shlex.split(line)[1:] for line in printed if line.startswith("gcloud") and " scp " not in line]
    assert asked == [call for call in cloud.calls[1:] if call[3] != "scp"]


def test_run_needs_a_type(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tpu_vm.main(["run", *FLAGS])
    assert "run needs --type" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_knows_every_command_and_flag(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [
        *dry_run(capsys, *RUN, "--project=p"),
        *dry_run(capsys, *RUN, "--queued"),
        *dry_run(capsys, "status", *FLAGS),
        *dry_run(capsys, "delete", *FLAGS),
        *dry_run(capsys, "delete", *FLAGS, "--queued"),
    ]
    commands = list(dict.fromkeys(line for line in lines if line.startswith("gcloud")))
    wrong = "gcloud compute tpus tpu-vm create mx --bogus=1"
    file = tmp_path / "commands.json"
    file.write_text(json.dumps([{"command_string": line} for line in [*commands, wrong]]))
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    verdicts = json.loads(subprocess.run(lint, check=True, capture_output=True, text=True).stdout)
    assert [verdict["success"] for verdict in verdicts] == [True] * len(commands) + [False]
