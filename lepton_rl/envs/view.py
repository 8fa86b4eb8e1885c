"""One environment as people see it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.tables import Hardware


@dataclass(frozen=True, eq=False)
class EnvironmentView:
    """One environment for people: GPUs by number, waiting jobs in window order; times in seconds."""

    time: float
    gpu_load: Floats  # (GPUs,), 0-1
    power_w: float
    running: int
    queue_gpus: Floats  # (waiting,)
    queue_time: Floats  # (waiting,), requested
    queue_wait: Floats  # (waiting,)
    queue_fits: NDArray[np.bool_]  # (waiting,)


def view_of(
    cluster: ClusterSpec, jobs: Floats, queue: Ints32, gpus: Ints32, totals: Ints64, hw: Hardware, clock: Floats,
    counts: Ints64, fitting: Bools,
) -> EnvironmentView:  # fmt: skip
    """Return it from its arrays; `fitting` (window,) says which visible jobs could start now."""
    front, back = counts[L.FRONT], counts[L.BACK]
    waiting = jobs[queue[front:back]]
    now = float(clock[L.NOW])
    load = 1.0 - gpus[:, L.FREE] / L.MILLI
    if hw is not None:
        load[gpus[:, L.DOWN] > 0] = 0.0
    fits = np.zeros(len(waiting), np.bool_)
    visible = min(len(waiting), len(fitting))
    fits[:visible] = fitting[:visible]
    drawn_w = float(cluster.gpu_draw_w(load).sum())
    if hw is not None:
        drawn_w = float(totals[L.POWER] - totals[L.HELD_BACK]) * 1e-6
    return EnvironmentView(
        time=now,
        gpu_load=load,
        power_w=drawn_w,
        running=int(counts[L.RUNNING]),
        queue_gpus=waiting[:, L.GPUS] / L.MILLI,
        queue_time=waiting[:, L.REQUESTED],
        queue_wait=now - waiting[:, L.SUBMIT],
        queue_fits=fits,
    )
