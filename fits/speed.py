"""Relative speeds of GPU types: what was measured, and the log-linear fit on two figures of the datasheets.

Only jobs that one study ran on both GPU types are compared, with the same batch size; for the T4 and the A100, which no
study measured beside a V100, ResNet-50 on ImageNet is compared across studies, and enters the fit alone. Each model
counts once, as the geometric mean over its batch sizes. NCF of zeus_power and A3C of gavel are left out: they keep the
CPU busy and the GPU near its idle draw. Recommendation is read from gavel's physical table: the simulation's V100
figures for it are below the K80's.

The exponents are bounded as a roofline is: a card with k times the compute and k times the bandwidth is at most k
times as fast. Free ones add up to 1.3, because the K80 and the T4 fall short of their datasheets, and would promise
newer cards speeds that nothing bears out.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.sources import csv_rows, gavel_throughputs, zeus_rows
from lepton_rl.core.hardware.shipped import datasheet_figure
from lepton_rl.core.hardware.speed import REFERENCE

GAVEL = "gavel_throughputs/physical_cluster_throughputs.json.gz"
GAVEL_GPUS = {"k80": "K80", "p100": "P100-PCIe"}
GAVEL_MODELS = {
    "ResNet-18": "vision", "ResNet-50": "vision", "CycleGAN": "vision", "Transformer": "language", "LM": "language",
    "Recommendation": "recommendation",
}  # fmt: skip
ZEUS_MODELS = {
    "shufflenetv2": "vision", "resnet50": "vision", "bert_base_uncased": "language", "deepspeech2": "speech"
}  # fmt: skip
ZEUS_REFERENCE = "V100-PCIe-32GB"
IMAGENET_IMAGES = 1_281_167
LINK_BATCH = 64
"""Samples per GPU at which ResNet-50 is compared across studies."""
SHRINKAGE = 3.0
"""Weight, in models, of the pooled exponents in a class's own: two classes have three GPU types or fewer."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A model's speed on one GPU type relative to another."""

    job_class: str
    model: str
    gpu: str
    base: str
    study: str
    log_speed: float
    linked: bool = False

    @property
    def figures(self) -> list[float]:
        """Logarithms of the ratios of FP32 rate and bandwidth."""
        return log_ratios(self.gpu, self.base)


def log_ratios(gpu: str, base: str) -> list[float]:
    """Return the logarithms of the ratios of FP32 rate and memory bandwidth of one GPU type to another's."""
    return [
        math.log(datasheet_figure(gpu, figure) / datasheet_figure(base, figure))
        for figure in ("fp32_tflops", "memory_bandwidth_gb_s")
    ]


def ratios(data: Path) -> list[Ratio]:
    """Return every usable comparison."""
    return [*_gavel(data), *_zeus(data), *_across_studies(data)]


def _gavel(data: Path) -> list[Ratio]:
    table = gavel_throughputs(data, GAVEL)
    logs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (name, gpus), entries in table["v100"].items():
        model = name.split(" (")[0]
        for key in GAVEL_GPUS:
            own, reference = table[key][name, gpus][None], entries[None]
            if gpus == 1 and model in GAVEL_MODELS and own > 0 and reference > 0:
                logs[model, GAVEL_GPUS[key]].append(math.log(own / reference))
    return [
        Ratio(GAVEL_MODELS[model], model, gpu, REFERENCE, "gavel", float(np.mean(values)))
        for (model, gpu), values in logs.items()
    ]


def _zeus(data: Path) -> list[Ratio]:
    unlimited = _unlimited(data)
    logs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for (gpu, job), seconds in unlimited.items():
        reference = unlimited.get((ZEUS_REFERENCE, job))
        if gpu != ZEUS_REFERENCE and reference is not None and job[1] in ZEUS_MODELS:
            logs[job[1], job[0], gpu].append(math.log(reference / seconds))
    return [
        Ratio(ZEUS_MODELS[network], f"{network} {dataset}", gpu, ZEUS_REFERENCE, "zeus", float(np.mean(values)))
        for (network, dataset, gpu), values in logs.items()
    ]


def _unlimited(data: Path) -> dict[Any, float]:
    rows = zeus_rows(data)
    highest = {gpu: max(row.limit_w for row in rows if row.gpu == gpu) for gpu in {row.gpu for row in rows}}
    return {(row.gpu, row.job): row.epoch_seconds for row in rows if row.limit_w == highest[row.gpu]}


def _across_studies(data: Path) -> list[Ratio]:
    job = ("imagenet", "resnet50", LINK_BATCH, "adadelta")
    base = IMAGENET_IMAGES / _unlimited(data)[ZEUS_REFERENCE, job]
    a100 = next(csv_rows(data / "elasticflow_throughputs/throughputs_A100/resnet50.csv"))
    speeds = {
        "A100-SXM4-40GB": ("elasticflow", float(a100["1"]) * LINK_BATCH),
        "T4": ("sia -aws", _t4_images_per_second(data)),
    }
    return [
        Ratio("vision", "ResNet-50", gpu, ZEUS_REFERENCE, study, math.log(speed / base), linked=True)
        for gpu, (study, speed) in speeds.items()
    ]


def _t4_images_per_second(data: Path) -> float:
    rows = [
        row for row in csv_rows(data / "sia_pollux_profiles/imagenet/placements-aws.csv") if row["placement"] == "1"
    ]
    rows.sort(key=lambda row: int(row["local_bsz"]))
    seconds = np.interp(
        LINK_BATCH, [float(row["local_bsz"]) for row in rows], [float(row["step_time"]) for row in rows]
    )
    return LINK_BATCH / float(seconds)


def exponents(rows: list[Ratio], job_class: str | None) -> NDArray[np.float64]:
    """Return the exponents of FP32 rate and bandwidth; pooled over all classes where none is named."""
    x, y = _design(rows)
    pooled = bounded_least_squares(x, y)
    if job_class is None:
        return pooled
    x, y = _design([row for row in rows if row.job_class == job_class])
    root = math.sqrt(SHRINKAGE)
    return bounded_least_squares(np.vstack((x, root * np.eye(2))), np.concatenate((y, root * pooled)))


def _design(rows: list[Ratio]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([row.figures for row in rows]).reshape(-1, 2), np.array([row.log_speed for row in rows])


def bounded_least_squares(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the two coefficients that fit best, none below 0 and their sum at most 1.

    The best point is inside that triangle, or on one of its sides, where it is the side's own best.
    """
    candidates: list[NDArray[np.float64]] = [np.zeros(2), np.linalg.lstsq(x, y, rcond=None)[0].astype(np.float64)]
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    for i in range(3):
        start, direction = corners[i], corners[(i + 1) % 3] - corners[i]
        along = x @ direction
        part = float(along @ (y - x @ start)) / float(along @ along)
        candidates.append(start + min(1.0, max(0.0, part)) * direction)
    feasible = [point for point in candidates if (point >= 0).all() and point.sum() <= 1 + 1e-12]
    return min(feasible, key=lambda point: float(((x @ point - y) ** 2).sum()))


def percent(log_error: float) -> int:
    """Return an error of a logarithm in percent of the value."""
    return round(100 * math.expm1(log_error))


def root_mean_square(values: Any) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(np.asarray(values, dtype=np.float64)))))


def fit_speed(data: Path) -> dict[str, Any]:
    """Return the `speed` part of the coefficients."""
    rows = ratios(data)
    classes = ("vision", "language", "recommendation", "speech")
    found = {}
    for job_class in classes:
        weights = exponents(rows, job_class)
        own = [row for row in rows if row.job_class == job_class]
        errors = [float(np.dot(row.figures, weights)) - row.log_speed for row in own]
        left_out = [
            float(np.dot(row.figures, exponents([other for other in rows if other.gpu != row.gpu], job_class)))
            - row.log_speed
            for row in own
        ]
        studies = ", ".join(sorted({row.study for row in own}))
        found[job_class] = {
            "fp32": round(float(weights[0]), 3),
            "bandwidth": round(float(weights[1]), 3),
            "basis": (
                f"{len(own)} model{'s' if len(own) > 1 else ''} x GPU types of {studies}; error "
                f"{percent(root_mean_square(errors))} %, {percent(root_mean_square(left_out))} % on a GPU type left out"
            ),
        }
    return {"exponents": found, "measured": _measured(rows, found)}


def _measured(rows: list[Ratio], fits: dict[str, Any]) -> dict[str, Any]:
    """Return the speeds of GPU types that one study measured beside a V100, relative to the reference."""
    groups: dict[tuple[str, str], list[Ratio]] = defaultdict(list)
    for row in rows:
        if not row.linked:
            groups[row.gpu, row.job_class].append(row)
    found: dict[str, Any] = {}
    for (gpu, job_class), group in groups.items():
        logs = [row.log_speed + _to_reference(row.base, fits[job_class]) for row in group]
        spread = f", spread {percent(float(np.std(logs, ddof=1)))} %" if len(logs) > 1 else ""
        models = f"{len(logs)} model{'s' if len(logs) > 1 else ''}"
        studies = " and ".join(sorted({row.study for row in group}))
        found.setdefault(gpu, {})[job_class] = {
            "value": round(math.exp(float(np.mean(logs))), 3),
            "basis": f"measured beside a V100 by {studies}: {models}{spread}",
        }
    return found


def _to_reference(base: str, fit: dict[str, float]) -> float:
    fp32, bandwidth = log_ratios(base, REFERENCE)
    return fit["fp32"] * fp32 + fit["bandwidth"] * bandwidth
