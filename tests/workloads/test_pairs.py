"""Reading measured pairs of jobs on one GPU."""

import json
import math
from pathlib import Path

import pytest

from lepton_rl.errors import TraceError
from lepton_rl.workloads.pairs import read_pair_table

PLAIN = "job1,speed1,job2,speed2\na,0.5,b,0.8\na,1.0,b,0.8\n"
LUCID = (
    ",model1,dataset1,gpu_num1,batchsize1,amp1,speed1,model2,dataset2,gpu_num2,batchsize2,amp2,speed2,gpu_util\n"
    "0,MobileNetV3,ImageNet,1,32,0,0.5,ResNet18,CIFAR-10,1,32,1,1.034,64.7\n"
)
GAVEL = {
    "v100": {
        "('A', 1)": {"null": 10.0, "('B', 1)": [5.0, 4.0], "('C', 1)": [0.0, 0.0], "('D', 2)": [1.0, 1.0]},
        "('B', 1)": {"null": 5.0},
        "('C', 1)": {"null": 2.0},
        "('D', 2)": {"null": 2.0},
    }
}


def written(folder: Path, text: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plain_file_with_a_pair_twice(tmp_path: Path) -> None:
    table = read_pair_table(written(tmp_path, PLAIN))
    assert table.slowdown_beside("a", ["b"]) == pytest.approx(1 / 0.75)
    assert table.slowdown_beside("b", ["a"]) == 1.25


def test_lucids_file(tmp_path: Path) -> None:
    table = read_pair_table(written(tmp_path, LUCID))
    assert table.jobs == ("MobileNetV3 ImageNet batch 32", "ResNet18 CIFAR-10 batch 32 amp")
    assert table.slowdown_beside(table.jobs[0], [table.jobs[1]]) == 2.0
    assert table.slowdown_beside(table.jobs[1], [table.jobs[0]]) == 1.0  # clipped


def test_gavels_file(tmp_path: Path) -> None:
    table = read_pair_table(written(tmp_path, json.dumps(GAVEL)), "v100")
    assert table.jobs == ("A", "B", "C")  # jobs of two GPUs share none
    assert table.slowdown_beside("A", ["B"]) == 2.0
    assert table.slowdown_beside("B", ["A"]) == 1.25
    assert table.slowdown_beside("A", ["C"]) == math.inf  # out of memory


@pytest.mark.parametrize(
    ("text", "gpu", "message"),
    [
        ("", None, "pairs.csv:1: column 'job1' is missing; required: job1, speed1, job2, speed2"),
        ("job1,speed1,job2,speed2\n", None, "pairs.csv: there are no pairs in it"),
        (PLAIN + "a,-1,b,1\n", None, "pairs.csv:4: a speed must be a number from 0 upwards, not '-1'"),
        (PLAIN + "a,fast,b,1\n", None, "pairs.csv:4: a speed must be a number from 0 upwards, not 'fast'"),
        (PLAIN + "a,1\n", None, "pairs.csv:4: a speed must be a number from 0 upwards, not None"),
        (json.dumps(GAVEL), None, "this file holds several GPU types; name one of: v100"),
        (json.dumps(GAVEL), "v10", "no GPU type is called 'v10'; did you mean 'v100'"),
        ("{", None, "pairs.csv:1: not JSON"),
        ('{"v100": {"x": 1}}', "v100", "not a table of throughputs as Gavel publishes it"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, gpu: str | None, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read_pair_table(written(tmp_path, text), gpu)


@pytest.mark.data
def test_the_published_gavel_file(data: Path) -> None:
    table = read_pair_table(data / "gavel_throughputs" / "simulation_throughputs.json.gz", "v100")
    assert len(table.jobs) == 26
