"""The page of simulated runs of one trace: what they were worth, and pictures of how they went."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lepton_rl.core.metrics import DESCRIPTIONS
from lepton_rl.errors import ConfigError, counted
from lepton_rl.experiments.drawing import line_style
from lepton_rl.experiments.gantt import MOST_GPUS, Schedule, gantt_figure
from lepton_rl.experiments.outputs import check_output_file
from lepton_rl.experiments.page import PAGE_FILE, Picture, check_can_draw, png, render, svg
from lepton_rl.experiments.pareto import ACROSS, FRONT_NOTE, UP, Point, pareto_figure
from lepton_rl.experiments.recording import Recording
from lepton_rl.experiments.run_plots import TIMELINES_NOTE, Run, heat_figure, heat_note, lines_figure
from lepton_rl.experiments.runs import make_folder, provenance, write_atomically
from lepton_rl.experiments.simulate import Simulation
from lepton_rl.experiments.statistics import Estimate
from lepton_rl.experiments.tables import TextTable, figure

_MOST_STAYS = 2000
"""More in one Gantt chart are not to be told apart."""
_MOST_OVER = 0.97


def check_report_folder(folder: Path, overwrite: bool = False, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a folder in which no page can be written, before anything runs; nothing is made yet.

    Raises:
        ConfigError: it is a file or cannot be written into, belongs to an input, or holds a page already.
        MissingExtra: matplotlib or Jinja2 is not installed.
    """
    check_can_draw()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise ConfigError(f"{folder}: {'is' if there == folder else f'{there} is'} a file; a report needs a folder")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"{folder}: cannot be written: Permission denied")
    check_output_file(folder / PAGE_FILE, overwrite, inputs, in_new_folder=True)


def write_run_report(simulations: Sequence[Simulation], folder: Path) -> Path:
    """Write the page of recorded runs of one trace into the folder, and return the page.

    Several runs are compared first; then each has its section. The first is the one that matters (a trained policy).

    Raises:
        ConfigError: the folder cannot be written into.
        MissingExtra: matplotlib or Jinja2 is not installed.
    """
    first, *others = simulations
    styles = [line_style(0, learned=True), *map(line_style, range(len(others)))] if others else [line_style(0)]
    runs = [Run(one.policy, _recorded(one), style) for one, style in zip(simulations, styles, strict=True)]
    jobs, cluster = counted(len(first.trace), "job"), first.outcome.cluster
    html = render(
        "run.html.jinja",
        kind="simulation",
        name=f"{first.trace.name} under {', '.join(dict.fromkeys(run.label for run in runs))}",
        description=f"{jobs} on {cluster}, requested times {first.trace.requested}.",
        run={"begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **provenance()},
        notes=first.notes,
        sections=[
            *([_compared(simulations, runs)] if others else []),
            *(_alone(one, run, is_only=not others) for one, run in zip(simulations, runs, strict=True)),
        ],
    )
    make_folder(folder)
    try:
        write_atomically(folder / PAGE_FILE, html)
    except OSError as error:
        raise ConfigError(f"{folder / PAGE_FILE}: cannot be written: {error.strerror or error}") from None
    return folder / PAGE_FILE


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    pictures: tuple[Picture, ...]
    table: TextTable | None = None


def _recorded(simulation: Simulation) -> Recording:
    assert simulation.recording is not None, "simulate(..., recorded=True)"
    return simulation.recording


def _compared(simulations: Sequence[Simulation], runs: Sequence[Run]) -> _Section:
    pictures = (
        svg("Over time", TIMELINES_NOTE, lines_figure(runs)),
        svg(
            "Completion time against energy",
            f"One run of each, without an interval. {FRONT_NOTE}",
            pareto_figure([_point(run) for run in runs]),
        ),
    )
    return _Section("Side by side", pictures, _table(simulations))


def _point(run: Run) -> Point:
    metrics = run.recording.outcome.metrics()
    across, up = (Estimate(metrics[metric], None, None, 1) for metric in (ACROSS, UP))
    return Point(run.label, run.style, across, up)


def _alone(simulation: Simulation, run: Run, is_only: bool) -> _Section:
    recording = run.recording
    pictures = [svg("Over time", TIMELINES_NOTE, lines_figure([run]))] if is_only else []
    pictures.append(png("GPUs over time", heat_note(recording), heat_figure(recording)))
    if recording.cluster.gpus <= MOST_GPUS:  # not each GPU of a larger one has a row, and a job may show on none
        pictures.append(_gantt(simulation, recording))
    rules = {"blocking": simulation.rules.blocking, "placement": simulation.rules.placement}
    title = ", ".join((simulation.policy, *(f"{kind} {name}" for kind, name in rules.items() if name)))
    return _Section(title, tuple(pictures), _table([simulation]) if is_only else None)


def _gantt(simulation: Simulation, recording: Recording) -> Picture:
    end, part = _drawn_until(recording)
    schedule = Schedule(simulation.policy, recording, simulation.trace.job_id)
    note = f"One colour for each job, in all of its stays; grey is idle.{part}"
    return png("Who ran where", note, gantt_figure([schedule], recording.begun, end, "the first submission"))


def _drawn_until(recording: Recording) -> tuple[float, str]:
    """Return where a Gantt chart ends that can be read, and what to say of it: neither crowded nor all stragglers."""
    stays = len(recording.job)
    if stays > _MOST_STAYS:
        end = max(recording.begin[_MOST_STAYS], np.median(recording.end[:_MOST_STAYS]))  # all may begin together
        return float(end), f" Up to the {_MOST_STAYS:,}th of {stays:,} starts; more do not fit."
    most = float(np.quantile(recording.end, _MOST_OVER, method="higher"))
    if most - recording.begun > 0.7 * (recording.ended - recording.begun):
        return recording.ended, ""
    return recording.begun + 1.05 * (most - recording.begun), f" Up to when {_MOST_OVER:.0%} of the stays are over."


def _table(simulations: Sequence[Simulation]) -> TextTable:
    summaries = [simulation.summary() for simulation in simulations]
    known = [key for key in summaries[0] if key in DESCRIPTIONS]
    rows = tuple((DESCRIPTIONS[key], *(figure(summary[key]) for summary in summaries)) for key in known)
    return TextTable("What it was worth", ("metric", *(simulation.policy for simulation in simulations)), rows)
