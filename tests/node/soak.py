"""Kills a real daemon and supervisors at random while jobs run under a policy, and asks the jobs what they saw.

A soak is `python -m tests.node.soak --kills 1000`.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lepton_rl.errors import NodeError
from lepton_rl.node import supervisor
from lepton_rl.node.jobs import JobState, RunRecord
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL
from lepton_rl.node.processes import Process
from tests.fake_nvml import FakeNvml, build_fake_nvml
from tests.node.daemons import DaemonNode

GPUS = 8
# A job is its own witness: one line when it begins and one before it ends, with the time.
_WITNESS = 'echo begin $(date +%s.%N) >> "$1"; sleep "$2"; echo end $(date +%s.%N) >> "$1"; exit "$3"'
_LATEST_KILL_S = 120.0  # a daemon that takes longer to answer is an error, not a victim


@dataclass
class Havoc:
    """What was done to a node."""

    daemons: int = 0
    supervised: set[int] = field(default_factory=set)  # jobs of which a supervisor was killed
    acknowledged: set[int] = field(default_factory=set)


class Submitter(threading.Thread):
    """Submits jobs one after the other over one connection until the daemon is killed under it."""

    def __init__(self, node: DaemonNode, chance: random.Random, count: int, havoc: Havoc) -> None:
        super().__init__(daemon=True)
        self._node, self._havoc = node, havoc
        self._jobs = [_job(node.folder, chance) for _ in range(count)]

    def run(self) -> None:
        """Submit, and note what was acknowledged."""
        with suppress(NodeError), self._node.client() as client:
            for job in self._jobs:
                self._havoc.acknowledged.add(client.call("submit", **job)["job"])


def _job(folder: Path, chance: random.Random) -> dict[str, object]:
    """Return a short job; its name is the exit code that it will have and the number of its witness."""
    name = f"{chance.choice([0, 0, 0, 1, 42])}.{chance.getrandbits(60):x}"
    code, last_s = name.partition(".")[0], f"{chance.uniform(0.0, 0.5):.3f}"
    argv = ["sh", "-c", _WITNESS, "sh", str(folder / "witness" / name), last_s, code]
    gpus = chance.choice([0.5, 0.5, 1.0, 1.0, 1.0, 2.0, 4.0])
    path = {"PATH": os.environ["PATH"]}
    return {"argv": argv, "cwd": "/", "env": path, "gpus": gpus, "name": name, "requested_s": 1.0}


def wreak(node: DaemonNode, seed: int, *, kills: int, jobs: int) -> Havoc:
    """Kill daemons `kills` times while at least `jobs` jobs are submitted; let the last one finish them."""
    chance, havoc = random.Random(seed), Havoc()
    (node.folder / "witness").mkdir()
    batch = max(8, 2 * jobs // max(kills, 1))
    while havoc.daemons < kills or len(havoc.acknowledged) < jobs:
        with _daemon(node) as daemon:
            early = chance.random() < 0.3  # while it still starts
            if early:
                _wreck_for(chance.uniform(0.3, 2.5), daemon, node, chance, havoc)
            else:
                _wait_for_answer(daemon, node)
                submitter = Submitter(node, chance, batch, havoc)
                submitter.start()
                _wreck_for(chance.uniform(0.05, 0.8), daemon, node, chance, havoc)
            assert daemon.poll() is None, f"the daemon ended by itself, with {daemon.returncode}"
            daemon.kill()
            havoc.daemons += 1
        if not early:
            submitter.join()
    with _daemon(node) as daemon:
        _wait_for_answer(daemon, node)
        with node.client() as client:
            deadline = time.monotonic() + 60.0 + jobs
            while client.call("queue"):
                assert time.monotonic() < deadline, f"jobs do not end: {client.call('queue')}"
                time.sleep(0.1)
        daemon.terminate()
    assert daemon.returncode == 0
    return havoc


def _daemon(node: DaemonNode) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "lepton_rl.cli", "node", "start", "--foreground", "--config", str(node.config)]
    with (node.folder / "daemon.log").open("ab") as log:
        return subprocess.Popen(words, env=node.environment, cwd=node.folder, stdout=log, stderr=log)


def _wait_for_answer(daemon: "subprocess.Popen[bytes]", node: DaemonNode) -> None:
    deadline = time.monotonic() + 10 * _LATEST_KILL_S
    while time.monotonic() < deadline:
        assert daemon.poll() is None, f"the daemon ended by itself: {(node.folder / 'daemon.log').read_text()[-2000:]}"
        with suppress(NodeError), node.client() as client:
            client.call("ping")
            return
        time.sleep(0.02)
    raise AssertionError("the daemon does not answer")


def _wreck_for(
    seconds: float, daemon: "subprocess.Popen[bytes]", node: DaemonNode, chance: random.Random, havoc: Havoc
) -> None:
    """Let some seconds pass, and kill a supervisor now and then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and daemon.poll() is None:
        if chance.random() < 0.05:
            havoc.supervised |= _kill_a_supervisor(node.state, chance)
        time.sleep(min(0.05, max(0.0, end - time.monotonic())))


def _kill_a_supervisor(state: Path, chance: random.Random) -> set[int]:
    """Kill -9 one supervisor of this node, perhaps one that has not begun yet; return its job."""
    found = []
    for pid in supervisor.process_ids():
        with suppress(OSError):
            process = Process.of(pid)
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            # The child has the same command line until it execs.
            if process and len(words) > 6 and words[3] == supervisor.__file__ and words[4].startswith(f"{state}/"):
                found.append((process, int(Path(words[4]).parent.name)))
    if not found:
        return set()
    process, job = chance.choice(found)
    return {job} if process.signal(signal.SIGKILL) else set()


def wrongs(node: DaemonNode, havoc: Havoc) -> list[str]:
    """Return what the journal says that the jobs' own witness does not bear out, as sentences."""
    found = []
    with Journal(node.state / JOURNAL) as journal:
        jobs = {job.id: job for job in journal.jobs()}
        found += [f"job {job} was acknowledged and is not there" for job in havoc.acknowledged - jobs.keys()]
        found += [f"job {run.job} still holds GPUs" for run in journal.holding()]
        begun: Counter[int] = Counter()
        ended: dict[int, float] = {}
        for job in jobs.values():
            witness = node.folder / "witness" / job.request.name
            lines = [line.split() for line in witness.read_text().splitlines()] if witness.exists() else []
            begun[job.id] = sum(what == "begin" for what, _ in lines)
            ended[job.id] = max((float(when) for what, when in lines if what == "end"), default=0.0)
            code = int(job.request.name.partition(".")[0])
            if begun[job.id] > 1:
                found.append(f"job {job.id} ran {begun[job.id]} times")
            if job.state is JobState.LOST:
                if job.id not in havoc.supervised:
                    found.append(f"job {job.id} is lost and its supervisor was not killed")
            elif job.id in havoc.supervised and job.signal == signal.SIGKILL and begun[job.id] == 0:
                continue  # the kill met the child before its exec: it has the supervisor's command line until then
            elif job.state is not (JobState.FAILED if code else JobState.DONE) or job.exit_code != code:
                found.append(f"job {job.id} should have ended with {code}: {job}")
            elif begun[job.id] != 1:
                found.append(f"job {job.id} is {job.state} and ran {begun[job.id]} times")
        runs = [run for job in jobs for run in journal.runs(job)]
    return found + overbooked(runs, ended)


def overbooked(runs: list[RunRecord], ended: dict[int, float]) -> list[str]:
    """Return when a GPU was held by more than fits it; a lost run holds its GPUs until its orphan's last word."""
    changes: dict[str, list[tuple[float, int, int]]] = {}
    for run in runs:
        assert run.ended_time is not None
        end = max(run.ended_time, ended.get(run.job, 0.0)) if run.outcome == "lost" else run.ended_time
        for uuid in run.gpu_uuids:
            part = min(run.gpu_milli, 1000)
            changes.setdefault(uuid, []).extend([(run.starting_time, part, run.job), (end, -part, run.job)])
    found = []
    for uuid, seen in changes.items():
        held = 0
        for when, change, job in sorted(seen):
            held += change
            if held > 1000:
                found.append(f"{uuid} is booked at {held / 1000:g} by job {job} at {when}")
    return found


def main() -> None:
    """Soak: print what was killed and what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.node.soak", description=main.__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="of daemons (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = build_fake_nvml(folder / "driver")
        with FakeNvml(folder / "nvml-state", gpus=GPUS) as fake, DaemonNode(folder, fake, library) as node:
            havoc = wreak(node, given.seed, kills=given.kills, jobs=5 * given.kills)
            with Journal(node.state / JOURNAL) as journal:
                print({str(state): count for state, count in journal.counts().items() if count})
            print(f"{havoc.daemons} daemons and {len(havoc.supervised)} supervisors killed")
            problems = wrongs(node, havoc)
            print("\n".join(problems) or "nothing wrong")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
