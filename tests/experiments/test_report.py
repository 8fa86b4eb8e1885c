"""What the page says: beats, loses or cannot be told, and the pictures of a learned policy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.experiments.benchmark import benchmark
from lepton_rl.experiments.plots import learning_curve_figure
from lepton_rl.experiments.report import verdict
from lepton_rl.experiments.runner import Contender, Measurement, Task
from lepton_rl.experiments.summary import WorkloadSummary, summarize
from lepton_rl.experiments.tables import markdown
from lepton_rl.workloads import read_trace


def summary(agent: list[float], block: int | None = 1) -> WorkloadSummary:
    generator = np.random.default_rng(0)
    saf = generator.lognormal(2.0, 0.3, len(agent))
    figures = {"fcfs": saf * 10, "saf": saf, "agent": saf * np.array(agent)}
    measurements = [
        Measurement(
            Task(Contender(policy, policy, "repick", None, None), "w", 0, index),
            {"mean_bounded_slowdown": float(value), "mean_jct": 100.0, "utilization": 0.5},
            [1, 2],
            0.0,
        )
        for policy, values in figures.items()
        for index, value in enumerate(values)
    ]
    return summarize(measurements, "w", cluster="8 GPUs", windows="many", learned=frozenset(["agent"]), block=block)


def test_a_win_a_loss_and_neither_are_said_as_plainly() -> None:
    (won,) = verdict(summary([0.5] * 30), "mean_bounded_slowdown")
    assert "agent" in won
    assert "beats saf, the strongest heuristic" in won
    assert "won on 30 of 30 windows and lost on 0" in won
    (lost,) = verdict(summary([1.5] * 30), "mean_bounded_slowdown")
    assert "loses to saf" in lost
    assert "won on 0 of 30 windows and lost on 30" in lost
    (neither,) = verdict(summary([0.5, 1.5] * 15), "mean_bounded_slowdown")
    assert "cannot be told from saf" in neither
    (overlapping,) = verdict(summary([0.5] * 30, block=None), "mean_bounded_slowdown")
    assert "ranks nothing" in overlapping


def test_ties_are_ties() -> None:
    found = summary([0.5] * 30)
    comparison = found.comparison(found.contenders[2], "mean_jct")
    assert comparison is not None
    assert (comparison.wins, comparison.losses, comparison.ties) == (0, 0, 30)


def test_the_strongest_heuristic_follows_the_direction_of_the_metric() -> None:
    strongest = summary([0.5] * 30).strongest("mean_bounded_slowdown")
    assert strongest is not None
    assert strongest.policy == "saf"


def test_a_learned_policy_has_its_learning_curve_on_the_page(
    benchmark_file: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("sb3_contrib")
    from lepton_rl.workloads import gpu_cluster, write_csv
    from tests.agents.test_bundle import bundle_of, shaken_model

    write_csv(gpu_cluster(200, 8, 1.0, seed=1), tmp_path / "jobs.csv")
    run = tmp_path / "runs" / "week"
    bundle_of(
        shaken_model("maskable_ppo", "deepsets", read_trace(tmp_path / "jobs.csv")),
        "deepsets",
        run / "bundle",
    )
    (run / "learning_curve.csv").write_text(
        "steps,seconds,mean_bounded_slowdown,mean_jct\n1000,1,50,900\n2000,2,4,800\n3000,3,3,850\n"
    )
    result = benchmark(benchmark_file(), [f"policies.+={run}"], out=tmp_path / "out")
    assert result.report is not None
    page = result.report.read_text()
    assert "week" in page
    assert page.count("data:image") == 9
    assert (tmp_path / "out" / "learning-curve-week.png").is_file()
    for name in ("gantt", "jct", "pareto", "timelines"):
        assert (tmp_path / "out" / f"{name}-gpu_cluster_8.png").is_file()
    assert len(list((tmp_path / "out").glob("heat-gpu_cluster_8-*.png"))) == 2
    assert {row["blocking"] for row in result.rows if row["policy"] == "week"} == {None}


def test_greedy_and_sampled_evaluations_are_two_lines_and_the_kept_one_has_a_mark(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "learning_curve.csv"
    file.write_text(
        "steps,mode,mean_bounded_slowdown,mean_jct\n"
        "0,greedy,50,900\n0,sampled,60,950\n1000,greedy,3,800\n1000,sampled,2,700\n2000,greedy,4,750\n"
    )
    figure = learning_curve_figure(file, "week", (1000, "sampled"))
    assert figure is not None
    figure.draw_without_rendering()
    renderer = figure._get_renderer()  # type: ignore[attr-defined]
    for axes, figures in zip(figure.axes, ([50, 3, 4], [900, 800, 750]), strict=True):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert list(lines) == ["greedy", "sampled", "kept"]
        assert list(np.asarray(lines["greedy"].get_xdata())) == [0, 1000, 2000]
        assert list(np.asarray(lines["greedy"].get_ydata())) == figures
        assert list(np.asarray(lines["kept"].get_xdata())) == [1000]
        assert list(np.asarray(lines["kept"].get_ydata())) == [np.asarray(lines["sampled"].get_ydata())[1]]
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["greedy", "sampled", "kept"]
        assert axes.yaxis.label.get_window_extent(renderer).y1 <= axes.get_window_extent(renderer).y1
    unmarked = learning_curve_figure(file, "week")
    assert unmarked is not None
    assert [line.get_label() for line in unmarked.axes[0].get_lines()] == ["greedy", "sampled"]


def test_names_do_not_lead_pictures_out_of_the_folder(benchmark_file: Callable[..., Path], tmp_path: Path) -> None:
    file = benchmark_file(("  - generator: gpu_cluster", "  - name: ../a week\n    generator: gpu_cluster"))
    result = benchmark(file, out=tmp_path / "out")
    assert result.report is not None
    assert (tmp_path / "out" / "gantt-..-a-week.png").is_file()


def test_names_are_text_on_the_page_not_markup(benchmark_file: Callable[..., Path], tmp_path: Path) -> None:
    file = benchmark_file(("[fcfs,", "[{name: fcfs, label: '<b>|x'},"))
    result = benchmark(file, out=tmp_path / "out")
    assert result.report is not None
    page = result.report.read_text()
    assert "<b>" not in page
    assert "percentile bootstrap over" in page
    assert "Differences are paired" in page
    assert "| <b>\\|x |" in markdown("n", "", result.outcome.blocks)
