"""Daemon and launcher of a shared node are killed at random: each job runs at most once and ends as it ended."""

import os
import random
import signal
import subprocess
import time

from lepton_rl.node.jobs import JobState
from lepton_rl.node.journal import Journal
from tests.node.chaos import Damage, wrongs
from tests.node.users import (
    ADA,
    BOB,
    SERVICE,
    LauncherProcess,
    SharedPlace,
    acting_as,
    need_root,
    python_for_others,
)

JOBS, BATCH, KILLS = 60, 6, 10


def test_killing_daemon_and_launcher_loses_and_repeats_nothing() -> None:
    need_root()
    program, variables = python_for_others()
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # shown where the test fails
    chance, place = random.Random(seed), SharedPlace()
    launcher = LauncherProcess(place.rules(), place.base / "launcher.log")
    witness = place.state / "witness"
    witness.touch()
    witness.chmod(0o666)
    place.state.chmod(0o711)  # for the witness alone
    words = [str(place.state), str(JOBS), str(BATCH), str(seed), str(place.launcher_socket), str(ADA), str(BOB)]
    command = [program, "-m", "tests.node.chaos_driver", *words]
    killed = {"daemon": 0, "launcher": 0}
    try:
        while True:
            with subprocess.Popen(
                command, env={"PATH": os.defpath, **variables}, user=SERVICE, group=SERVICE, extra_groups=[],
                umask=0o077, cwd="/",
            ) as daemon:  # fmt: skip
                end = time.monotonic() + chance.uniform(0.3, 1.2)
                while daemon.poll() is None and (killed["daemon"] >= KILLS or time.monotonic() < end):
                    time.sleep(chance.uniform(0.02, 0.2))
                    if killed["launcher"] < KILLS and chance.random() < 0.3:
                        launcher.end(signal.SIGKILL)
                        killed["launcher"] += 1
                        time.sleep(chance.uniform(0.0, 0.2))
                        launcher.start()
                if daemon.poll() is None:
                    daemon.kill()
                    killed["daemon"] += 1
            if daemon.returncode != -signal.SIGKILL:
                assert daemon.returncode == 0
                break
        with acting_as(SERVICE):
            with Journal(place.state / "journal.sqlite") as journal:
                jobs = journal.jobs()
                counts = journal.counts()
            found = wrongs(place.state, Damage(killed["daemon"], set()))
        assert found == []
        assert len(jobs) == JOBS
        assert counts[JobState.DONE] > 0
        assert counts[JobState.LOST] == 0
        assert min(killed.values()) >= KILLS // 2, "a slow machine may be done with the jobs before"
    finally:
        launcher.end(signal.SIGKILL)
        place.close()
