"""A daemon and supervisors are killed at random under a policy: nothing is lost, repeated, or run on a GPU in use."""

import random
from pathlib import Path

import pytest

from lepton_rl.node.jobs import JobState
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL
from tests.fake_nvml import FakeNvml
from tests.fake_nvml.control import VARIABLE
from tests.node.daemons import DaemonNode
from tests.node.soak import GPUS, wreak, wrongs


def test_killed_daemons_and_supervisors_lose_and_repeat_nothing(
    tmp_path: Path, fake_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # shown where the test fails
    with FakeNvml(tmp_path / "nvml-state", gpus=GPUS) as fake, DaemonNode(tmp_path, fake, fake_library) as node:
        monkeypatch.setenv(VARIABLE, str(fake.path))
        havoc = wreak(node, seed, kills=20, jobs=100)
        assert havoc.daemons >= 20
        assert len(havoc.acknowledged) >= 100
        with Journal(node.state / JOURNAL) as journal:
            assert journal.counts()[JobState.DONE] > 0
        assert wrongs(node, havoc) == []
