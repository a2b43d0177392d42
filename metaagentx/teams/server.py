"""One policy of a team on devices of its own (M-GRPO, arXiv 2511.13288): run one of these for each.

    python -m metaagentx.teams.server --policy=main --config=configs/tiny_team.py --workdir=runs/team/main \\
        --store=sqlite:///runs/team/team.db
    python -m metaagentx.teams.server --policy=sub --config=configs/tiny_team.py --workdir=runs/team/sub \\
        --store=sqlite:///runs/team/team.db

Servers share the store and nothing else: sub-tasks and reports as text, scalar rewards, ids, and where each one's
weights are. Each may be killed at any moment; the same command goes on. While servers go in step
(`team.exchange.staleness` 0), they end with the weights that `metaagentx.train` has with the same config: bit for bit
where each role has weights of its own and engines have one bucket of each kind, else but for rounding.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import jax
from absl import flags

from metaagentx import atomic, command_line, sft
from metaagentx.checkpoint import Checkpoints, claim
from metaagentx.metrics import MetricWriter, Progress
from metaagentx.preemption import notice
from metaagentx.sections import SettingsError, plain
from metaagentx.settings import Settings
from metaagentx.teams.apprentice import Apprentice
from metaagentx.teams.joined import agree, joined, unlike
from metaagentx.teams.journal import Journal
from metaagentx.teams.lead import lead
from metaagentx.teams.options import MAIN, TeamOptions
from metaagentx.teams.outbox import Stopped
from metaagentx.teams.pulse import Pulse
from metaagentx.teams.recall import Answers
from metaagentx.teams.serve import serve
from metaagentx.teams.store import Store
from metaagentx.workbench import open_workbench

POLICY = flags.DEFINE_string("policy", None, "Which of the team's policies this server has: main, sub, ...")
STORE = flags.DEFINE_string("store", None, "What the servers share: sqlite:///FILE or postgresql://USER@HOST/DATABASE.")
RUN = flags.DEFINE_string("run", "team", "The run's name in the store.")
JOURNAL = flags.DEFINE_string(
    "journal", None, "Directory on a disk for what this server keeps to itself, where --workdir is a mounted bucket."
)


def run_server(
    settings: Settings,
    workdir: Path,
    policy: str,
    url: str,
    run: str,
    stop: threading.Event,
    journal: Path | None = None,
) -> None:
    """The whole run of one policy. `journal`: keep what is the server's own in there, and not in `workdir`.

    Raises:
      CheckpointError: the work directory is in use, or is another run's.
      SettingsError: the config has no such policy, or cannot be run by servers; or the store or the journal cannot be
        used, or the store holds a run of this name with another config or with this policy in another work directory.
      Preempted: `stop` was set. All is saved.
      StoreError: the store was locked or away for too long, or a disk is full or fails.
    """
    team = checked(settings, policy)
    with claim(workdir, plain(settings), unlike):
        server = taken(workdir, policy)
        with joined(settings, team, url, run, f"policy {policy!r}") as store:
            folder = workdir if journal is None else journal / server
            try:
                with kept(folder, policy) as own_file, Pulse(store, policy, team.exchange) as pulse:
                    _work(settings, team, workdir, policy, server, store, own_file, pulse, stop)
            except Stopped:
                raise command_line.Preempted(f"policy {policy}: preempted, saved; run the same command again") from None


def _work(
    settings: Settings,
    team: TeamOptions,
    workdir: Path,
    policy: str,
    server: str,
    store: Store,
    own_file: Answers | Journal,
    pulse: Pulse,
    stop: threading.Event,
) -> None:
    options, every = team.exchange, settings.train.checkpoint_every
    with (
        open_workbench(settings, roles=(policy,)) as bench,
        MetricWriter(workdir) as writer,
        Progress(settings.train.steps) as progress,
    ):
        # ----- The questions, and what devices will hold
        bench.expect("train")
        bench.memory()

        # ----- Its place in the run; a first try that failed so far binds nobody
        agree(settings, store)
        own(workdir, policy, server, store)

        # ----- Where training begins: a checkpoint, or the cold start, which is the same on every server
        cold = sft.cold_start(bench, workdir, writer, stop)
        with closing(Apprentice(bench, policy, team, workdir, cold, writer, progress)) as apprentice:
            # ----- Step by step, each role its part
            if isinstance(own_file, Journal):
                serve(apprentice, store, own_file, pulse, team.sub_reward, options, server, every, stop)
            else:
                lead(apprentice, store, own_file, pulse, team.main_reward, options, every, stop)


@contextmanager
def kept(folder: Path, policy: str) -> Iterator[Answers | Journal]:
    """What a server keeps to itself, in a file in `folder`.

    Raises:
      SettingsError: no file can be used there.
    """
    who = f"policy {policy!r}"
    try:
        found = Answers(folder / "answers.db", who) if policy == MAIN else Journal(folder / "journal.db", who)
    except ValueError as error:
        raise SettingsError(f"{error}; --journal=DIRECTORY, on a disk or a file store, is where to keep it") from error
    with closing(found):
        yield found


def taken(workdir: Path, policy: str) -> str:
    """Make `workdir` this policy's; the name of its server. Raises SettingsError if it is another policy's."""
    path = workdir / "server.json"
    if not path.exists():
        atomic.write(path, json.dumps({"policy": policy, "server": uuid.uuid4().hex}))
    found = json.loads(path.read_text())
    if found["policy"] != policy:
        raise SettingsError(
            f"{workdir} belongs to the server of policy {found['policy']!r}; give each server its own --workdir"
        )
    return found["server"]


def own(workdir: Path, policy: str, server: str, store: Store) -> None:
    """Make `policy` of this run the server's of `workdir`, where its tokens and checkpoints are and nowhere else.

    Raises:
      SettingsError: it is another's; or `workdir` holds training of another run.
    """
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    trained, known = checkpoints.latest() or 0, store.pointer(policy)
    checkpoints.close()
    if trained and known is None:
        raise SettingsError(f"{workdir} is of another --run or --store, and {trained} steps on; give a new --workdir")
    if store.own(policy, server) != server:
        raise SettingsError(
            f"policy {policy!r} is trained in another work directory than {workdir}; give that one, or another --run"
        )


def checked(settings: Settings, policy: str) -> TeamOptions:
    """The team. Raises SettingsError where this policy cannot have a server of its own."""
    team, options = settings.team, settings.policies
    if team is None:
        raise SettingsError("config.team is missing: servers of one policy each are for a team, as in tiny_team.py")
    if policy not in team.learners:
        raise SettingsError(
            f"--policy must be one of {', '.join(team.learners)}, as config.team has it, not {policy!r}"
        )
    if policy in options.served:
        raise SettingsError(f"--policy={policy}: config.policies.servers.{policy} answers for it already")
    if options.layout == "shared":
        raise SettingsError("config.policies.layout must be 'split' or 'adapters' for servers of one policy each")
    if team.local == "judge" and team.judge_role not in options.served and team.judge_role != policy:
        raise SettingsError(
            f"config.policies.servers.{team.judge_role} must be given: no server of this run has the judge's weights"
        )
    if team.exchange.staleness and not settings.loss.importance_cap:
        raise SettingsError("config.team.exchange.staleness wants loss.importance_cap above 0")
    if settings.generation.staleness or jax.process_count() > 1:
        raise SettingsError("a policy's server is one process, with config.generation.staleness 0")
    return team


def main(settings: Settings, workdir: Path) -> None:
    if not POLICY.value or not STORE.value:
        raise SettingsError(
            "--policy=NAME and --store=URL are needed: which policy this server has, and what all share"
        )
    with notice() as stop:
        journal = Path(JOURNAL.value).expanduser().resolve() if JOURNAL.value else None
        run_server(settings, workdir, POLICY.value, STORE.value, RUN.value, stop, journal)
    print(f"policy {POLICY.value}: done", file=sys.stderr)


if __name__ == "__main__":
    command_line.run(main)
