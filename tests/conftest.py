"""Settings that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from lepton_rl.workloads import data_folder

# Functions may compile inside any example: no deadline. Examples are the same every time, so that
# a failure repeats on the next machine. HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real traces and measurements; the test is skipped where there is none."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no folder of real traces: set LEPTON_RL_DATA, or put it at ../shared/data")
    return folder
