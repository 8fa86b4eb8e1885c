"""What the tests of hardware share."""

from pathlib import Path

import pytest

from lepton_rl.workloads import data_folder


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of measurements; the test is skipped where there is none."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no folder of measurements: set LEPTON_RL_DATA, or put it at ../shared/data")
    return folder
