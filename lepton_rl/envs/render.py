"""Pictures of an environment: the queue, every GPU and the utilisation, as text or as pixels."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton_rl.envs.picture import draw
from lepton_rl.errors import counted

if TYPE_CHECKING:
    from lepton_rl.envs.batch import EnvironmentBatch

_BLOCKS = " ▁▂▃▄▅▆▇█"
_SHOWN_JOBS = 12
_SHOWN_NODES = 32


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
        lines.append(f"... {counted(len(load) - _SHOWN_NODES, 'more node')}")
    for slot, (gpus, time, wait, fits) in enumerate(
        zip(view.queue_gpus, view.queue_time, view.queue_wait, view.queue_fits, strict=True)
    ):
        if slot == _SHOWN_JOBS:
            lines.append(f"... {counted(len(view.queue_gpus) - _SHOWN_JOBS, 'more job')}")
            break
        lines.append(
            f"slot {slot:>3} {'*' if fits else ' '} {counted(gpus, 'GPU')}, asks {time:,.0f} s, waits {wait:,.0f} s"
        )
    return "\n".join(lines)


def render_rgb(batch: "EnvironmentBatch", env: int = 0) -> NDArray[np.uint8]:
    """Return the state of one environment as an RGB picture (height, width, 3), as `envs.picture` draws it."""
    return draw(batch.view(env), batch.cluster, batch.codec.window)
