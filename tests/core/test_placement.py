"""Which GPUs a job gets: two nodes of four GPUs, worked out by hand, and the books kept on them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import layout as L
from lepton_rl.core.placement import Placement
from tests.core.tables import MEMORY_GIB, Table
from tests.reference import simulator as reference
from tests.reference.simulator import Job

FIRST, BEST, WORST, CONSOLIDATED = Placement


def half_full(demands: list[float], figures_gib: list[float] | None = None) -> Table:
    """Node 0 has GPUs 1 and 3 free, node 1 has 5, 6 and 7; rows 0 and 1 hold the rest."""
    table = Table([2, 1, *demands], [0, 0, *(figures_gib or [])])
    table.hold(0, [0, 2])
    table.hold(1, [4])
    return table


@pytest.mark.parametrize(
    ("gpus", "first", "best", "worst", "consolidated"),
    [
        (1, [1], [1], [5], [1]),
        (2, [1, 3], [1, 3], [5, 1], [1, 3]),
        (3, [1, 3, 5], [5, 6, 7], [5, 1, 6], [5, 6, 7]),
        (4, [1, 3, 5, 6], [5, 6, 7, 1], [5, 1, 6, 3], None),
        (5, [1, 3, 5, 6, 7], [5, 6, 7, 1, 3], [5, 1, 6, 3, 7], [5, 6, 7, 1, 3]),
        (6, None, None, None, None),
    ],
)
def test_gangs(
    gpus: float,
    first: list[int] | None,
    best: list[int] | None,
    worst: list[int] | None,
    consolidated: list[int] | None,
) -> None:
    for rule, expected in ((FIRST, first), (BEST, best), (WORST, worst), (CONSOLIDATED, consolidated)):
        table = half_full([gpus])
        held = table.place(2, rule)
        # Worst fit takes the freest node each time: 3 against 2, then 2 against 2, the lower index first.
        assert held == expected, rule
        table.check()


@pytest.mark.parametrize(
    ("share", "figure_gib", "first", "best", "worst"),
    [
        (0.2, 0.0, 0, 0, 2),  # free: 0.4, 0.6, 1 and from 4 on 0.6 with little memory
        (0.5, 0.0, 1, 1, 2),
        (0.5, 10.0, 1, 1, 2),
        (0.3, 33.0, 1, 1, 2),  # GPU 0 has 32 GiB left
        (0.7, 0.0, 2, 2, 2),
        (0.6, 48.5, 2, 2, 2),
    ],
)
def test_shares(share: float, figure_gib: float, first: int, best: int, worst: int) -> None:
    for rule, expected in ((FIRST, first), (BEST, best), (WORST, worst), (CONSOLIDATED, best)):
        table = Table([0.6, 0.4, 0.4, 1, 3, share], [0, 0, 72, 0, 0, figure_gib])
        for job in (0, 1):
            assert table.place(job, FIRST) == [job]  # 0.6 on GPU 0; 0.4 goes beside it
            if job == 0:
                table.give_back(0)
                table.hold(3, [0])
        table.give_back(3)
        assert table.place(0, FIRST) == [0]
        table.hold(3, [2])
        table.hold(4, [3, 4, 5])
        assert table.place(2, BEST) == [1]  # as tight as GPU 0 would leave it, but that has no 72 GiB
        assert rule in Placement
        assert expected in (first, best, worst)
