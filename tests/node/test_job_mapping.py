"""The files in which dcgm-exporter finds the jobs of each GPU."""

from pathlib import Path

import pytest

from lepton_rl.errors import NodeError
from lepton_rl.node.job_mapping import JobMapping


def held(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_one_file_for_each_gpu_with_a_job_on_each_line(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "mapping"
    mapping = JobMapping(folder)
    mapping.write({0: (3, 17), 1: ()})
    assert held(folder) == {"0": "3\n17\n", "1": ""}
    before = (folder / "1").stat().st_ino
    mapping.write({0: (17,), 1: ()})
    assert held(folder) == {"0": "17\n", "1": ""}
    assert (folder / "1").stat().st_ino == before  # what has not changed is not written
    mapping.close()
    assert held(folder) == {"0": "", "1": ""}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeError, match="hpc_job_mapping_dir"):
        JobMapping(tmp_path / "file" / "mapping")


def test_a_folder_that_goes_away_is_written_again_when_it_is_back(tmp_path: Path) -> None:
    mapping = JobMapping(tmp_path / "m")
    (tmp_path / "m").rmdir()
    mapping.write({0: (1,)})
    (tmp_path / "m").mkdir()
    mapping.write({0: (1,)})
    assert held(tmp_path / "m") == {"0": "1\n"}
