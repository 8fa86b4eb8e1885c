"""Pictures of an environment: the queue, every GPU and the utilisation, as text or as pixels."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lepton_rl.envs.batch import EnvironmentBatch

_BLOCKS = " ▁▂▃▄▅▆▇█"
_SHOWN_JOBS = 12
_SHOWN_NODES = 32
_CELL = 10  # pixels of a GPU's square, its border included
_WIDTH = 640

_BACKGROUND = np.array((250, 250, 248), np.uint8)
_FREE = np.array((222, 224, 226), np.uint8)
_USED = np.array((38, 110, 180), np.uint8)
_WAITING = np.array((214, 138, 52), np.uint8)
_STARTABLE = np.array((74, 154, 92), np.uint8)


def render_ansi(batch: "EnvironmentBatch", env: int = 0) -> str:
    """Return the state of one environment as a few lines of text."""
    view = batch.view(env)
    load = np.split(view.gpu_load, batch.cluster.first_gpus[1:])
    lines = [
        f"time {view.time:,.0f} s   utilisation {view.gpu_load.mean():.0%}   power {view.power_w / 1000:.1f} kW   "
        f"running {view.running}   waiting {len(view.queue_gpus)}"
    ]
    for node, row in enumerate(load[:_SHOWN_NODES]):
        cells = "".join(_BLOCKS[round(value * (len(_BLOCKS) - 1))] for value in row)
        lines.append(f"node {node:>3} |{cells}|")
    if len(load) > _SHOWN_NODES:
        lines.append(f"... {len(load) - _SHOWN_NODES} more nodes")
    for slot, (gpus, time, wait, fits) in enumerate(
        zip(view.queue_gpus, view.queue_time, view.queue_wait, view.queue_fits, strict=True)
    ):
        if slot == _SHOWN_JOBS:
            lines.append(f"... {len(view.queue_gpus) - _SHOWN_JOBS} more jobs")
            break
        lines.append(f"slot {slot:>3} {'*' if fits else ' '} {gpus:g} GPUs, asks {time:,.0f} s, waits {wait:,.0f} s")
    return "\n".join(lines)


def render_rgb(batch: "EnvironmentBatch", env: int = 0) -> NDArray[np.uint8]:
    """Return the state of one environment as an RGB picture (height, width, 3).

    From top to bottom: the utilisation as a bar; one square a GPU, blue by load; one bar a visible job, as long as
    its share of the cluster (square root), green when it could start now, orange when not.
    """
    view = batch.view(env)
    per_line = (_WIDTH - 20) // _CELL
    lines = -(-len(view.gpu_load) // per_line)
    grid_top = 30
    queue_top = grid_top + lines * _CELL + 10
    height = queue_top + batch.codec.window * 4 + 10
    picture = np.empty((height, _WIDTH, 3), np.uint8)
    picture[:] = _BACKGROUND
    span = _WIDTH - 20
    picture[10:20, 10 : 10 + span] = _FREE
    picture[10:20, 10 : 10 + round(span * float(view.gpu_load.mean()))] = _USED
    for gpu, load in enumerate(view.gpu_load):
        top = grid_top + gpu // per_line * _CELL
        left = 10 + gpu % per_line * _CELL
        picture[top : top + _CELL - 2, left : left + _CELL - 2] = (_FREE * (1 - load) + _USED * load).astype(np.uint8)
    for slot in range(min(len(view.queue_gpus), batch.codec.window)):
        top = queue_top + slot * 4
        length = max(round(span * float(np.sqrt(view.queue_gpus[slot] / batch.cluster.gpus))), 2)
        picture[top : top + 3, 10 : 10 + length] = _STARTABLE if view.queue_fits[slot] else _WAITING
    return picture
