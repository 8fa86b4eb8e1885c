"""The page of one simulated run: what it was worth, and pictures of how it went."""

import os
import time
from pathlib import Path

import numpy as np

from lepton_rl.core.metrics import DESCRIPTIONS
from lepton_rl.errors import ConfigError, counted
from lepton_rl.experiments.drawing import line_style
from lepton_rl.experiments.gantt import MOST_GPUS, Schedule, gantt_figure
from lepton_rl.experiments.outputs import check_output_file
from lepton_rl.experiments.page import PAGE_FILE, Picture, check_can_draw, png, render, svg
from lepton_rl.experiments.recording import Recording
from lepton_rl.experiments.run_plots import TIMELINES_NOTE, Run, heat_figure, heat_note, lines_figure
from lepton_rl.experiments.runs import make_folder, provenance, write_atomically
from lepton_rl.experiments.simulate import Simulation
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


def write_run_report(simulation: Simulation, folder: Path) -> Path:
    """Write the page of a recorded run into the folder, and return the page.

    Raises:
        ConfigError: the folder cannot be written into.
        MissingExtra: matplotlib or Jinja2 is not installed.
    """
    recording = simulation.recording
    assert recording is not None, "simulate(..., recorded=True)"
    rules = {"blocking": simulation.rules.blocking, "placement": simulation.rules.placement}
    trace, cluster = simulation.trace, recording.cluster
    html = render(
        "run.html.jinja",
        kind="simulation",
        name=f"{trace.name} under {simulation.policy}",
        description="",
        run={"begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **provenance()},
        title=", ".join((simulation.policy, *(f"{kind} {name}" for kind, name in rules.items() if name))),
        about=f"{counted(len(trace), 'job')} on {cluster}, requested times {trace.requested}",
        notes=simulation.notes,
        pictures=_pictures(simulation, recording),
        table=_table(simulation),
    )
    make_folder(folder)
    try:
        write_atomically(folder / PAGE_FILE, html)
    except OSError as error:
        raise ConfigError(f"{folder / PAGE_FILE}: cannot be written: {error.strerror or error}") from None
    return folder / PAGE_FILE


def _pictures(simulation: Simulation, recording: Recording) -> list[Picture]:
    lines = lines_figure([Run(simulation.policy, recording, line_style(0))])
    pictures = [
        svg("Over time", TIMELINES_NOTE, lines),
        png("GPUs over time", heat_note(recording), heat_figure(recording)),
    ]
    if recording.cluster.gpus <= MOST_GPUS:  # not each GPU of a larger one has a row, and a job may show on none
        pictures.append(_gantt(simulation, recording))
    return pictures


def _gantt(simulation: Simulation, recording: Recording) -> Picture:
    end, part = _drawn_until(recording)
    schedule = Schedule(simulation.policy, recording, simulation.trace.job_id)
    note = f"One colour for each job, in all of its stays; grey is idle.{part}"
    return png("Who ran where", note, gantt_figure([schedule], recording.begun, end, "the first submission"))


def _drawn_until(recording: Recording) -> tuple[float, str]:
    """Return where a Gantt chart ends that can be read, and what to say of it: neither crowded nor all stragglers."""
    stays = len(recording.job)
    if stays > _MOST_STAYS:
        return float(
            recording.begin[_MOST_STAYS]
        ), f" Up to the {_MOST_STAYS:,}th of {stays:,} starts; more do not fit."
    most = float(np.quantile(recording.end, _MOST_OVER, method="higher"))
    if most - recording.begun > 0.7 * (recording.ended - recording.begun):
        return recording.ended, ""
    return recording.begun + 1.05 * (most - recording.begun), f" Up to when {_MOST_OVER:.0%} of the stays are over."


def _table(simulation: Simulation) -> TextTable:
    summary = simulation.summary()
    metrics = {key: value for key, value in summary.items() if key in DESCRIPTIONS}
    rows = tuple((DESCRIPTIONS[key], figure(value)) for key, value in metrics.items())
    return TextTable("What it was worth", ("metric", simulation.policy), rows)
