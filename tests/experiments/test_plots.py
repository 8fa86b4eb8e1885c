"""The pictures of a benchmark: the Pareto front named, and one look for a policy in all of them."""

import numpy as np
import pytest

from lepton_rl.experiments.pareto import ACROSS, UP, pareto_figure
from lepton_rl.experiments.plots import cdf_figure, line_styles, pareto_points
from lepton_rl.experiments.runner import Contender, Measurement, Task
from lepton_rl.experiments.summary import WorkloadSummary, summarize
from lepton_rl.experiments.windows import JCT_GRID

pytest.importorskip("matplotlib")

FIGURES = {"fcfs": (9.0, 5.0), "saf": (4.0, 5.0), "pack": (7.0, 2.0), "agent": (6.0, 3.0), "other": (8.0, 4.0)}


def summary(block: int | None = 1) -> WorkloadSummary:
    """Return five policies' results, means of mean JCT and energy as in FIGURES."""
    measurements = [
        Measurement(
            Task(Contender(policy, policy, "repick", None, None), "w", 0, window),
            {"mean_jct": jct + window - 1, "energy_kwh": energy, "mean_bounded_slowdown": 1.0},
            np.bincount([100 + window], minlength=len(JCT_GRID) - 1).tolist(),
            0.0,
        )
        for policy, (jct, energy) in FIGURES.items()
        for window in range(3)
    ]
    learned = frozenset(["agent", "other"])
    return summarize(measurements, "w", cluster="8 GPUs", windows="three", learned=learned, block=block)


@pytest.mark.parametrize("block", [1, None], ids=["intervals", "means"])
def test_the_front_is_joined_and_named(block: int | None) -> None:
    figure = pareto_figure(pareto_points(summary(block), ACROSS, UP))
    (axes,) = figure.axes
    joined = axes.lines[-1]
    assert np.column_stack((joined.get_xdata(), joined.get_ydata())).tolist() == [[4.0, 5.0], [6.0, 3.0], [7.0, 2.0]]
    weights = {text.get_text(): text.get_fontweight() for text in figure.legends[0].get_texts()}
    assert {name for name, weight in weights.items() if weight == "bold"} == {"saf", "agent", "pack"}
    assert list(weights) == list(FIGURES)
    assert axes.get_xlabel() == "mean job completion time, s"
    assert axes.get_ylabel() == "energy of all GPUs over the makespan, kWh"


def test_a_policy_looks_the_same_in_every_picture() -> None:
    from matplotlib.colors import to_hex

    found = summary()
    styles = {contender.label: style for contender, style in line_styles(found).items()}
    assert len({(style["color"], style["linestyle"]) for style in styles.values()}) == len(FIGURES)
    lines = {line.get_label(): line for line in cdf_figure(found, JCT_GRID).axes[0].lines}
    handles, labels = pareto_figure(pareto_points(found, ACROSS, UP)).axes[0].get_legend_handles_labels()
    points = dict(zip(labels, handles, strict=True))
    for label, style in styles.items():
        assert to_hex(lines[label].get_color()) == style["color"]
        assert to_hex(points[label].lines[0].get_color()) == style["color"]
