"""The picture of a trace: its arrivals, and the distributions of sizes, run times and gaps."""

from typing import TYPE_CHECKING

import numpy as np

from lepton_rl.errors import counted
from lepton_rl.experiments.drawing import new_figure, time_unit
from lepton_rl.workloads import Trace, duration_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def trace_figure(trace: Trace) -> "Figure":
    """Draw arrivals over time, and the distributions of run time, GPUs and gaps.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure = new_figure(11, 6.5)
    figure.suptitle(f"{trace.name}: {counted(len(trace), 'job')}")
    arrivals, sizes, run_times, gaps = figure.subplots(2, 2).ravel()

    unit, unit_name = time_unit(float(trace.submit_time[-1]))
    counts, edges = np.histogram(trace.submit_time / unit, bins=120)
    arrivals.stairs(counts, edges, fill=True, color="tab:blue")
    width = duration_text(float(edges[1] - edges[0]) * unit)
    arrivals.set(xlabel=f"submit time ({unit_name})", ylabel=f"jobs in {width}", title="Arrivals")

    size, count = np.unique(trace.gpus, return_counts=True)
    seconds = np.array([trace.run_time[trace.gpus == s].sum() * s for s in size])
    for label, values in (("jobs", count), ("GPU-seconds", seconds)):
        share = np.cumsum(values) / values.sum()
        sizes.step(size, share, where="post", marker="o", markersize=3, label=label)
    sizes.set(xlabel="GPUs of a job", ylabel="share up to this size", ylim=(0, 1.02), title="Sizes")
    sizes.set_xscale("log", base=2)
    sizes.xaxis.set_major_formatter("{x:g}")
    sizes.legend()

    for axes, values, title in (
        (run_times, trace.run_time, "Run times"),
        (gaps, np.maximum(np.diff(trace.submit_time), 0.1), "Gaps between arrivals"),
    ):
        axes.set(xscale="log", xlabel="seconds", ylabel="share up to this time", ylim=(0, 1.02), title=title)
        if len(values):
            axes.step(np.sort(values), np.arange(1, len(values) + 1) / len(values), where="post")
        for seconds_, name in ((60.0, "1 min"), (3600.0, "1 h"), (86400.0, "1 d")):
            axes.axvline(seconds_, color="0.8", linewidth=0.8, zorder=0)
            axes.text(seconds_, 0.02, name, color="0.5", fontsize=7)
    return figure
