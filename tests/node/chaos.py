"""Kills a daemon and supervisors at random while jobs run, and compares the journal with what the jobs themselves saw.

A soak is `python -m tests.node.chaos --kills 1000`.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lepton_rl.node import supervisor
from lepton_rl.node.jobs import JobRecord, JobState
from lepton_rl.node.journal import Journal
from lepton_rl.node.processes import Process


@dataclass
class Damage:
    """What was killed."""

    daemons: int
    supervised: set[int]  # jobs of which a supervisor was killed


def wreak(folder: Path, seed: int, *, kills: int, batch: int = 6) -> Damage:
    """Run (kills + 1) x batch jobs under a daemon that is killed at least `kills` times, and a supervisor now and then.

    Each daemon submits one batch, so that not all jobs are there before it was killed that often.
    """
    chance, jobs = random.Random(seed), (kills + 1) * batch
    damage = Damage(0, set())
    command = [sys.executable, "-m", "tests.node.chaos_driver", str(folder), str(jobs), str(batch), str(seed)]
    while True:
        with subprocess.Popen(command) as daemon:
            last = damage.daemons >= kills and _submitted(folder) == jobs
            end = time.monotonic() + chance.uniform(0.25, 0.9)
            while daemon.poll() is None and (last or time.monotonic() < end):
                time.sleep(chance.uniform(0.02, 0.2))
                if chance.random() < 0.12:
                    damage.supervised |= _kill_a_supervisor(folder, chance)
            if daemon.poll() is None:
                daemon.kill()
                damage.daemons += 1
        if daemon.returncode != -signal.SIGKILL:
            assert daemon.returncode == 0, f"the daemon failed with {daemon.returncode}"
            return damage


def _submitted(folder: Path) -> int:
    if not (folder / "journal.sqlite").is_file():
        return 0
    with Journal(folder / "journal.sqlite") as journal:
        return len(journal.jobs())


def _kill_a_supervisor(folder: Path, chance: random.Random) -> set[int]:
    """Kill -9 one supervisor of this folder, perhaps one that has not begun yet; return its job."""
    found: dict[int, tuple[Process, int, int]] = {}
    for pid in supervisor.process_ids():
        with suppress(OSError):
            process, parent = Process.of(pid), int(supervisor.stat(pid)[1])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if len(words) > 6 and words[3] == supervisor.__file__ and words[4].startswith(f"{folder}/") and process:
                found[pid] = (process, parent, int(Path(words[4]).parent.name))
    # A job has its supervisor's command line until it execs: to kill that one is to kill the job itself.
    chosen = [(process, job) for process, parent, job in found.values() if parent not in found]
    if not chosen:
        return set()
    process, job = chance.choice(chosen)
    return {job} if process.signal(signal.SIGKILL) else set()


def wrongs(folder: Path, damage: Damage) -> list[str]:
    """Return what the journal says that the jobs' own witness does not bear out, as sentences."""
    begun: Counter[tuple[int, int]] = Counter()  # by job and run
    times: dict[str, list[tuple[float, str, str]]] = {}
    for line in (folder / "witness").read_text().splitlines():
        what, number, run, gpu, when = line.split()
        begun[int(number), int(run)] += what == "begin"
        times.setdefault(gpu, []).append((float(when), what, f"{number}.{run}"))
    found = [f"run {run} of job {number} ran {count} times" for (number, run), count in begun.items() if count > 1]
    with Journal(folder / "journal.sqlite") as journal:
        if len(journal.holding()):
            found.append("GPUs are booked at the end")
        for job in journal.jobs():
            runs = sum(count for (number, _), count in begun.items() if number == job.id)
            found += _wrong(job, runs, killed=job.id in damage.supervised)
    for gpu, seen in times.items():
        ends = {who for _, what, who in seen if what == "end"}  # one killed in between has none
        holder: str | None = None
        for _, what, who in sorted(seen):
            if what == "begin" and holder in ends:
                found.append(f"{gpu} was given to run {who} while run {holder} ran on it")
            holder = who if what == "begin" else None
    return found


def _wrong(job: JobRecord, runs: int, *, killed: bool) -> list[str]:
    """Return what is wrong with the end of a job that its witness saw begin `runs` times."""
    expected, kind = int(job.request.name), job.request.project
    if job.state is JobState.LOST:
        return [] if killed else [f"job {job.id} is lost and its supervisor was not killed"]
    if runs > 1 and kind != "preempt":
        return [f"job {job.id} ran {runs} times and is not restartable"]
    if kind == "cancel":
        return [] if job.state is JobState.CANCELLED else [f"job {job.id} should have been cancelled: {job}"]
    ended = -job.signal if job.signal is not None else job.exit_code
    if job.state is not (JobState.DONE if expected == 0 else JobState.FAILED) or ended != expected:
        return [f"job {job.id} should have ended with {expected}: {job}"]
    return [] if runs else [f"job {job.id} is {job.state} and never ran"]


def main() -> None:
    """Soak: print what was killed and what came of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        damage = wreak(Path(folder), given.seed, kills=given.kills)
        with Journal(Path(folder) / "journal.sqlite") as journal:
            print({str(state): count for state, count in journal.counts().items() if count})
        print(f"{damage.daemons} daemons and {len(damage.supervised)} supervisors killed")
        problems = wrongs(Path(folder), damage)
        print("\n".join(problems) or "nothing wrong")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
