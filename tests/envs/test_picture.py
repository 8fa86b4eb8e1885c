"""render_mode "rgb_array": what the picture of a moment shows, and that any cluster has room in it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton_rl.core import ClusterSpec
from lepton_rl.envs import pixel_text
from lepton_rl.envs.picture import SHOWN_JOBS, WIDTH, draw
from lepton_rl.envs.view import EnvironmentView
from tests.envs.cases import skip_choice
from tests.envs.test_scheduling import small

BLUE, PALE, GREEN, ORANGE, VIOLET = (38, 110, 180), (236, 238, 240), (74, 154, 92), (214, 138, 52), (120, 100, 160)


def colour(picture: NDArray[np.uint8], top: int, left: int) -> tuple[int, ...]:
    return tuple(picture[top, left].tolist())


def view(cluster: ClusterSpec, waiting: int = 0) -> EnvironmentView:
    """Every second GPU is busy; jobs that ask for all GPUs have waited 1 s to 9 days."""
    load = np.resize([0.0, 1.0], cluster.gpus)
    jobs = np.full(waiting, float(cluster.gpus))
    wait: NDArray[np.float64] = np.geomspace(1, 8e5, waiting)
    return EnvironmentView(1e6, load, cluster.max_power_w * cluster.gpus, 12, jobs, jobs, wait, jobs < 0)


def test_what_it_shows() -> None:
    env = small("rgb_array")  # of four GPUs the first is half busy, the last two wholly; two jobs wait
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (WIDTH, 3)
    in_use, power = ((picture[line] == BLUE).all(1).sum() for line in (49, 71))
    assert (in_use, power) == (round(0.625 * 408), round((50 * 4 + 350 * 2.5) / 1600 * 408))
    # node 0 is a tile of two squares, node 1 stands behind it
    first, second, third, fourth = (colour(picture, 106 + 12, left + 12) for left in (60, 84, 111, 135))
    assert first == (137, 174, 210)
    assert (second, third, fourth) == (PALE, BLUE, BLUE)
    queue = 106 + 24 + 3 + 12 + 14
    assert colour(picture, queue + 4, 61) == ORANGE  # asks for two GPUs, one is free
    assert colour(picture, queue + 11 + 4, 61) == GREEN
    while not env.step(skip_choice(env.action_masks()))[2]:
        assert env.render().shape == picture.shape


def test_bars_of_the_queue() -> None:
    cluster = ClusterSpec(2, 8)
    picture = draw(view(cluster, 40), cluster, 64)
    assert picture.shape == draw(view(cluster), cluster, 64).shape
    bars = [length for line in picture if (length := (line == VIOLET).all(1).sum())]
    assert sorted(bars) == bars, "jobs that waited longer have longer bars"
    assert bars[-1] < WIDTH // 2
    asked = [(line == ORANGE).all(1).sum() for line in picture]
    assert max(asked) == 256
    assert sum(length == 256 for length in asked) == SHOWN_JOBS * 8


@pytest.mark.parametrize(
    ("cluster", "window"),
    [
        (ClusterSpec.pool(1), 1),
        (ClusterSpec(1_000_000, 1), 64),
        (ClusterSpec(50_001, 8), 4096),
        (ClusterSpec(3000, 8), 64),
        (ClusterSpec(300, 8), 64),
        (ClusterSpec(7, 200), 64),
        (ClusterSpec.pool(700), 64),
        (ClusterSpec.pool(1_000_000), 64),
    ],
    ids=str,
)
def test_every_cluster_has_room(cluster: ClusterSpec, window: int) -> None:
    picture = draw(view(cluster, 99), cluster, window)
    assert picture.shape == draw(view(cluster), cluster, window).shape
    assert picture.shape[0] <= 540
    assert (picture[-1] == picture[0, 0]).all()
    assert (picture[:, -1] == picture[0, 0]).all()


def test_letters() -> None:
    picture = np.zeros((9, 14, 3), np.uint8)
    pixel_text.write(picture, 1, 1, "L7", np.array((1, 1, 1), np.uint8))
    assert ["".join(" #"[dot] for dot in line) for line in picture[1:8, 1:12, 0]] == [
        "#     #####",
        "#         #",
        "#        # ",
        "#       #  ",
        "#      #   ",
        "#      #   ",
        "#####  #   ",
    ]
    assert not picture[0].any()
    assert not picture[8].any()
    assert pixel_text.width("L7", 2) == 22
