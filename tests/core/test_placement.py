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


def shared(demands: list[float], figures_gib: list[float] | None = None) -> Table:
    """GPUs 0 to 3 have 0.4, 0.6, 1 and 0.5 free, the last one only 8 GiB; node 1 is full."""
    table = Table([0.6, 0.4, 0.5, 4, *demands], [0, 0, 72, 0, *(figures_gib or [])])
    for job, gpus in enumerate(([0], [1], [3], [4, 5, 6, 7])):
        table.hold(job, gpus)
    return table


@pytest.mark.parametrize(
    ("share", "figure_gib", "first", "best", "worst"),
    [
        (0.2, 0.0, 0, 0, 2),
        (0.4, 0.0, 0, 0, 2),
        (0.4, 33.0, 1, 1, 2),  # GPU 0 has 32 GiB left
        (0.5, 0.0, 1, 1, 2),  # GPU 3 lacks the memory
        (0.5, 8.0, 1, 3, 2),
        (0.6, 49.0, 2, 2, 2),  # GPU 1 has 48 GiB left
        (1, 0.0, 2, 2, 2),
    ],
)
def test_shares(share: float, figure_gib: float, first: int, best: int, worst: int) -> None:
    for rule, expected in ((FIRST, first), (BEST, best), (WORST, worst), (CONSOLIDATED, best)):
        table = shared([share], [figure_gib])
        assert table.place(4, rule) == [expected], rule
        table.check()


def test_a_share_without_figure_takes_its_part_of_the_memory() -> None:
    table = shared([0.2, 0.2], [0.0, 10.0])
    assert table.free_share == [0.4, 0.6, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert table.free_gib == [32.0, 48.0, 80.0, 8.0, 0.0, 0.0, 0.0, 0.0]
    table.place(4, FIRST)
    table.place(5, FIRST)
    assert table.free_share[0] == 0.0
    assert table.free_gib[0] == 32.0 - 16.0 - 10.0


def test_a_full_cluster_fits_nothing() -> None:
    table = Table([8, 0.025, 1])
    assert table.place(0) == [0, 1, 2, 3, 4, 5, 6, 7]
    for rule in Placement:
        assert table.place(1, rule) is None
        assert table.place(2, rule) is None
    table.check()


def test_the_memory_of_a_gang_counts_on_its_node() -> None:
    # Row 0 says 20 GiB, row 1 says nothing and counts with whole GPUs; both keep others off their GPUs.
    table = Table([2, 1], [20.0])
    table.place(0)
    table.place(1)
    assert table.allocation[1][0, L.MEMORY_USED] == (2 * 20 + MEMORY_GIB) * L.MIB_PER_GIB
    assert table.free_gib[:4] == [0.0, 0.0, 0.0, 80.0]
    table.give_back(0)
    assert table.allocation[1][0, L.MEMORY_USED] == MEMORY_GIB * L.MIB_PER_GIB


def test_a_consolidated_gang_needs_no_more_nodes_than_it_must() -> None:
    # Three nodes of four: a gang of six must come to lie on two.
    table = Table([1, 1, 1, 6, 6], nodes=3)
    for job, gpu in enumerate((0, 4, 8)):
        table.hold(job, [gpu])
    assert table.place(3, CONSOLIDATED) == [1, 2, 3, 5, 6, 7]
    table.give_back(3)
    table.give_back(1)
    table.hold(1, [5])
    table.give_back(0)
    assert table.place(3, CONSOLIDATED) == [0, 1, 2, 3, 4, 6]
    assert table.place(4, CONSOLIDATED) is None


def test_more_than_64_gpus_in_a_node() -> None:
    table = Table([64, 3, 63], nodes=1, gpus_per_node=130)
    assert table.place(0) == list(range(64))
    assert table.place(1) == [64, 65, 66]
    assert table.place(2) == list(range(67, 130))
    table.check()
    table.give_back(1)
    assert table.place(1, BEST) == [64, 65, 66]
    table.check()


SIZES = (0.025, 0.25, 0.3, 0.5, 0.75, 1, 1, 2, 3, 5, 8)


@settings(max_examples=150)
@given(
    shape=st.sampled_from([(1, 9), (3, 3), (2, 4), (4, 1)]),
    rule=st.sampled_from(list(Placement)),
    jobs=st.lists(
        st.tuples(st.sampled_from(SIZES), st.sampled_from([0.0, 5.0, 30.0, 80.0]), st.integers(0, 3)),
        min_size=1,
        max_size=30,
    ),
)
def test_random_starts_and_ends_keep_the_books(
    shape: tuple[int, int], rule: Placement, jobs: list[tuple[float, float, int]]
) -> None:
    """The same GPUs as the reference chooses; sums and free sets stay those of the GPUs."""
    nodes, gpus_per_node = shape
    table = Table([size for size, _, _ in jobs], [gib for _, gib, _ in jobs], nodes, gpus_per_node)
    names = {FIRST: "first", BEST: "best", WORST: "worst", CONSOLIDATED: "consolidated"}
    cluster = reference.Cluster(nodes, gpus_per_node, MEMORY_GIB, names[rule])  # type: ignore[arg-type]
    running: list[int] = []
    for row, (size, gib, leave) in enumerate(jobs):
        job = Job(row, 0.0, 1.0, 1.0, size, memory_gib=gib or None)
        expected = cluster.find(job)
        held = table.place(row, rule)
        assert (held and sorted(held)) == expected
        if expected is not None:
            cluster.take(job, expected)
            running.append(row)
        table.check()
        for _ in range(min(leave, len(running))):
            gone = running.pop(leave % len(running))
            size, gib, _ = jobs[gone]
            cluster.give(Job(gone, 0.0, 1.0, 1.0, size, memory_gib=gib or None), table.held(gone))
            table.give_back(gone)
            table.check()
    for gone in running:
        table.give_back(gone)
    empty = Table([1], (), nodes, gpus_per_node)
    assert table.free_share == empty.free_share
    assert table.free_gib == empty.free_gib
    assert (table.allocation[1] == empty.allocation[1]).all()
