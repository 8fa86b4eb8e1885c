"""Slowdown by nodes and racks spanned."""

import pytest

from lepton_rl.core.hardware import Locality, SpreadCurve, default_locality, spread_slowdown
from lepton_rl.errors import ConfigError

CURVE = SpreadCurve((1, 2, 6), (1.0, 1.4, 1.8))


@pytest.mark.parametrize(("nodes", "slowdown"), [(1, 1.0), (2, 1.4), (3, 1.5), (5, 1.7), (6, 1.8), (100, 1.8)])
def test_linear_between_the_points_and_flat_after_them(nodes: int, slowdown: float) -> None:
    assert spread_slowdown(nodes, CURVE.counts, CURVE.slowdowns) == pytest.approx(slowdown)
    assert CURVE.table(100)[nodes] == pytest.approx(slowdown)


def test_nodes_and_racks_multiply() -> None:
    locality = Locality(CURVE, SpreadCurve((1, 2), (1.0, 1.5)))
    assert locality.slowdown(2, 2) == pytest.approx(2.1)
    assert locality.slowdown(2) == pytest.approx(1.4)
    assert Locality().slowdown(50, 10) == 1.0


def test_the_default_slows_what_leaves_its_node() -> None:
    default = default_locality()
    assert default.slowdown(1) == 1.0
    assert 1.2 < default.slowdown(2) < 2.0
    assert default.slowdown(16, 4) == default.slowdown(2)


@pytest.mark.parametrize(
    ("counts", "slowdowns", "message"),
    [
        ((), (), "one slowdown for each count, not 0 for 0"),
        ((1, 2), (1.0,), "one slowdown for each count, not 1 for 2"),
        ((2,), (1.0,), "starts with count 1 at slowdown 1, not 2 at 1"),
        ((1,), (1.5,), "starts with count 1 at slowdown 1, not 1 at 1.5"),
        ((1, 3, 3), (1.0, 1.2, 1.3), "the counts of a curve must rise; 3 follows 3"),
        ((1, 2), (1.0, 0.9), "a slowdown must be 1 or more, not 0.9"),
    ],
)
def test_a_wrong_curve_is_refused(counts: tuple[int, ...], slowdowns: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpreadCurve(counts, slowdowns)
