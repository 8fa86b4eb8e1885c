"""Daemon and supervisors are killed at random: each job runs at most once, none is forgotten, no exit code is wrong."""

import random
from pathlib import Path

from lepton_rl.node.jobs import JobState
from lepton_rl.node.journal import Journal
from tests.node.chaos import wreak, wrongs


def test_killing_daemon_and_supervisors_loses_and_repeats_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # shown where the test fails
    damage = wreak(tmp_path, seed, kills=20)
    assert damage.daemons >= 20
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert len(journal.jobs()) == 126
        assert journal.counts()[JobState.DONE] > 0
    assert wrongs(tmp_path, damage) == []
