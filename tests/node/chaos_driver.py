"""A daemon in small for the chaos test: adopts, submits one batch, keeps GPUs busy; to be killed at any moment.

Every seventh job never ends by itself and is cancelled; every eleventh is preempted in its first run.

Run as `python -m tests.node.chaos_driver FOLDER JOBS BATCH SEED [LAUNCHER UID ...]`; it ends, with 0, once all jobs are
final. With LAUNCHER, its socket, jobs are of these users by turns.
"""

import random
import select
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from lepton_rl.errors import JobError
from lepton_rl.node.jobs import FINAL, JobRequest, JobState, StopHow
from lepton_rl.node.journal import Journal
from lepton_rl.node.launcher_client import LauncherStarter
from lepton_rl.node.runs import Runs

GPUS = tuple(f"GPU-{number}" for number in range(6))

# Each job is its own witness: one line when it begins and one before it ends, with the GPU that it was given.
_WITNESS = """
import os, sys, time
def tell(what):
    job, run, gpu = (os.environ[name] for name in ("LEPTON_JOB_ID", "LEPTON_RUN", "CUDA_VISIBLE_DEVICES"))
    line = f"{what} {job} {run} {gpu} {time.monotonic()}\\n"
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line.encode())
    os.fsync(file)
tell("begin")
endless = sys.argv[4] == "cancel" or (sys.argv[4] == "preempt" and os.environ["LEPTON_RUN"] == "1")
time.sleep(1000 if endless else float(sys.argv[2]))
tell("end")
code = int(sys.argv[3])
os.kill(os.getpid(), -code) if code < 0 else os._exit(code)
"""


def request(folder: Path, number: int, chance: random.Random, uid: int = 0) -> JobRequest:
    """Return a short job; its name is the exit code that it will have, negative for a signal."""
    code = chance.choice([0, 0, 0, 1, 42, -9, -15])
    last_s = f"{chance.uniform(0.0, 0.4):.3f}"
    kind = "cancel" if number % 7 == 0 else "preempt" if number % 11 == 0 else "plain"
    argv = (sys.executable, "-I", "-S", "-c", _WITNESS, str(folder / "witness"), last_s, str(code), kind)
    return JobRequest(argv=argv, cwd="/", uid=uid, name=str(code), project=kind, restartable=kind == "preempt")


def stop_some(journal: Journal, runs: Runs) -> None:
    """Cancel what is to be cancelled, preempt what is to be preempted, and end what is left of either when lost."""
    for run in journal.holding():
        job = journal.job(run.job)
        if job.state is JobState.RUNNING and job.request.project == "cancel":
            runs.stop(job.id, "cancelled")
        elif job.state is JobState.RUNNING and job.request.project == "preempt" and run.run == 1:
            runs.stop(job.id, "preempted", then=JobState.WAITING, how=StopHow.CHECKPOINT)
        elif job.state is JobState.LOST and job.request.project != "plain":
            runs.end_orphan(job.id, StopHow.KILL)


def main(folder: Path, jobs: int, batch: int, seed: int, launcher: str = "", *uids: str) -> None:
    """Submit at most one batch, then work until all `jobs` there shall be are final."""
    users = [int(uid) for uid in uids] or [0]
    with Journal(folder / "journal.sqlite", now=time.time()) as journal, ExitStack() as open_things:
        starter = LauncherStarter(Path(launcher), journal.node_id) if launcher else None
        runs = open_things.enter_context(Runs(folder, journal, starter=starter))
        runs.adopt()
        known = len(journal.jobs())
        with journal.transaction():
            for number in range(known, min(jobs, known + batch)):
                chance = random.Random(seed * 10_000 + number)
                journal.submit(request(folder, number, chance, users[number % len(users)]), time.time())
        while True:
            runs.poll()
            stop_some(journal, runs)
            taken = {gpu for run in journal.holding() for gpu in run.gpu_uuids}
            free = [gpu for gpu in GPUS if gpu not in taken]
            for job, gpu in zip(journal.queue(), free, strict=False):
                try:
                    runs.launch(job.id, [gpu])
                except JobError as error:
                    print(error, file=sys.stderr)
            counts = journal.counts()
            if sum(counts[state] for state in FINAL) == jobs and not journal.holding():
                return
            select.select([runs], [], [], 0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
