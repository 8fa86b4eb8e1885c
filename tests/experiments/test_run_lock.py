"""Two runs do not share a folder."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_rl.errors import ConfigError
from lepton_rl.experiments.benchmark import benchmark
from lepton_rl.experiments.run_lock import alone_in
from lepton_rl.experiments.train import train

HOLD = """\
import sys
from pathlib import Path
from lepton_rl.experiments.run_lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_folder_is_one_run_s_until_its_process_ends(benchmark_file: Callable[..., Path], tmp_path: Path) -> None:
    folder, training = tmp_path / "run", tmp_path / "train.yaml"
    training.write_text(
        "name: small\nworkload: {generator: gpu_cluster, gpus: 8, jobs: 2000}\ncluster: {gpus: 8}\n"
        "episode: {jobs: 40}\ntraining: {device: cpu}\n"
    )
    folder.mkdir()
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for run in (lambda: benchmark(benchmark_file(), out=folder), lambda: train(training, out=folder)):
            with pytest.raises(ConfigError, match=r"another run is under way there; choose another --out"):
                run()
        other.kill()
    assert [path.name for path in folder.iterdir()] == [".lock"]
    benchmark(benchmark_file(("count: 6", "count: 1")), out=folder)
    assert not (folder / ".lock").exists()


def test_a_folder_is_free_again_after_a_run_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with alone_in(tmp_path):
            assert (tmp_path / ".lock").is_file()
    with pytest.raises(RuntimeError), alone_in(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
