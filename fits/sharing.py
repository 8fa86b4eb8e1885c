"""Interference of jobs on one GPU, from gavel's pairs, and slowdown by nodes spanned, from gavel and the T4 testbed.

The pairs are gavel's simulation table: in the physical one the Recommendation entries alone were measured anew, and no
longer fit the pairs. Every pair keeps its GPU busy, so the coefficient of `1 + c u v` is read at u = v = 1.

Gavel's "unconsolidated" workers are on unknown numbers of servers, so only its jobs of two GPUs are used: one server
against two. The T4 placements (sia's -aws files) go to four nodes; in them two nodes are slower than three or four, a
trait of that network. The default is therefore one step, from one node to more, and flat after that.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.sources import csv_rows, gavel_throughputs
from fits.speed import percent, root_mean_square

GAVEL = "gavel_throughputs/simulation_throughputs.json.gz"
PAIR_GPUS = {"k80": "K80", "p100": "P100-PCIe", "v100": "V100-SXM2-16GB"}
NEWEST = "V100-SXM2-16GB"
"""Its coefficient is the default: the newest card with pairs, and the one that lucid's pairs bear out."""
T4_JOBS = ("bert", "cifar10", "deepspeech2", "imagenet", "ncf", "yolov3")


def pair_speeds(data: Path, gpu: str) -> NDArray[np.float64]:
    """Return the relative speeds of all jobs in all pairs that ran together, clipped at 1."""
    table = gavel_throughputs(data, GAVEL)[gpu]
    found = []
    for job, entries in table.items():
        for beside, speeds in entries.items():
            if beside is None or job[1] != 1 or beside[1] != 1:
                continue
            alone = (entries[None], table[beside][None])
            if min(*alone, *speeds) > 0:
                found += [min(1.0, speed / single) for speed, single in zip(speeds, alone, strict=True)]
    return np.array(found)


def fit_interference(data: Path) -> dict[str, Any]:
    """Return the `interference` part of the coefficients."""
    found = {}
    for key, gpu in PAIR_GPUS.items():
        speeds = pair_speeds(data, key)
        mean = float(np.mean(speeds))
        found[gpu] = {
            "value": round(1.0 / mean - 1.0, 3),
            "basis": (
                f"gavel, {len(speeds) // 2} pairs; each runs at {mean:.2f} of its speed alone, error "
                f"{root_mean_square(speeds - mean):.2f}"
            ),
        }
    default = {"value": found[NEWEST]["value"], "basis": f"that of the {NEWEST}: {found[NEWEST]['basis']}"}
    return {"default": default, **found}


def node_steps(data: Path) -> dict[str, list[float]]:
    """Return logarithms of the slowdown from one node to more, by GPU type, one for each kind of job."""
    found: dict[str, list[float]] = {}
    table = gavel_throughputs(data, GAVEL)
    for key, gpu in PAIR_GPUS.items():
        spread = table[f"{key}_unconsolidated"]
        found[gpu] = [
            math.log(entries[None] / spread[job][None])
            for job, entries in table[key].items()
            if job[1] == 2 and job in spread and min(entries[None], spread[job][None]) > 0
        ]
    found["T4"] = [_t4_step(data, name) for name in T4_JOBS]
    return found


def _t4_step(data: Path, name: str) -> float:
    """Return the mean over numbers of GPUs, batch sizes and placements of one job, against all GPUs on one node."""
    together: dict[tuple[int, str], float] = {}
    spread: dict[tuple[int, str], list[float]] = defaultdict(list)
    for row in csv_rows(data / f"sia_pollux_profiles/{name}/placements-aws.csv"):
        gpus = (sum(map(int, row["placement"])), row["local_bsz"])
        seconds = math.log(float(row["step_time"]))
        if len(row["placement"]) == 1:
            together[gpus] = seconds
        else:
            spread[gpus].append(seconds)
    return float(np.mean([value - together[key] for key in together for value in spread.get(key, [])]))


def fit_locality(data: Path) -> dict[str, Any]:
    """Return the `locality` part of the coefficients."""
    steps = node_steps(data)
    means = {gpu: float(np.mean(values)) for gpu, values in steps.items()}
    by_gpu = ", ".join(f"{gpu} {math.exp(mean):.2f}" for gpu, mean in means.items())
    everything = [value - means[gpu] for gpu, values in steps.items() for value in values]
    return {
        "nodes": {
            "counts": [1, 2],
            "slowdowns": [1.0, round(math.exp(float(np.mean(list(means.values())))), 3)],
            "basis": (
                f"gavel and sia -aws, geometric mean over GPU types ({by_gpu}); jobs of a type differ by "
                f"{percent(root_mean_square(everything))} %"
            ),
        },
        "racks": {"counts": [1], "slowdowns": [1.0], "basis": "no data name racks: no slowdown unless it is set"},
    }
