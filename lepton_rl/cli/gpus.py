"""`lepton-rl gpus`: the built-in GPU types, with the source of every figure."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_rl.cli.options import Overwrite, output_option
from lepton_rl.cli.printing import note, print_json
from lepton_rl.errors import ConfigError

if TYPE_CHECKING:
    from lepton_rl.core.hardware import GpuType

FIGURES = {
    "memory_gib": ("memory", "GiB"),
    "idle_power_w": ("idle power", "W"),
    "max_power_w": ("maximum power", "W"),
    "min_power_limit_w": ("lowest power limit", "W"),
    "max_power_limit_w": ("highest power limit", "W"),
    "fp32_tflops": ("FP32", "TFLOP/s"),
    "fp16_tflops": ("FP16, dense", "TFLOP/s"),
    "memory_bandwidth_gb_s": ("memory bandwidth", "GB/s"),
    "throttle_temperature_c": ("slows itself at", "°C"),
    "thermal_resistance_c_per_w": ("thermal resistance", "°C/W"),
    "thermal_time_constant_s": ("thermal time constant", "s"),
    "price_usd_per_hour": ("rent", "USD/h"),
}


def gpus(
    name: Annotated[str | None, typer.Argument(help="One GPU type, by a name or alias; all without it.")] = None,
    plot: Annotated[
        Path | None, output_option("Picture to write, of its power and energy against utilisation and power limit.")
    ] = None,
    overwrite: Overwrite = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the built-in GPU types, or one of them in full with the source of every figure.

    Speeds are relative to a V100 SXM2; docs/hardware.md says how they were found, and how far off they are.

    Example: lepton-rl gpus

    Example: lepton-rl gpus A100 --plot a100.png
    """
    from lepton_rl.core.hardware import gpu_type, gpu_types

    if name is None:
        if plot is not None:
            raise ConfigError("--plot draws one GPU type; name it: lepton-rl gpus A100 --plot a100.png")
        if json:
            print_json({"gpus": [_as_dict(gpu) for gpu in gpu_types()]})
        else:
            _print_all(gpu_types())
        return
    gpu = gpu_type(name)
    if plot is not None:
        from lepton_rl.experiments.drawing import save_picture
        from lepton_rl.experiments.outputs import check_output_file
        from lepton_rl.experiments.power_plot import power_figure

        check_output_file(plot, overwrite)
        save_picture(power_figure(gpu), plot)
    if json:
        print_json(_as_dict(gpu))
    else:
        _print_one(gpu)
    if plot is not None:
        note(f"written: {plot}")


def _as_dict(gpu: "GpuType") -> dict[str, Any]:
    from dataclasses import asdict

    from lepton_rl.core.hardware import aliases

    return {**asdict(gpu), "aliases": list(aliases(gpu.name))}


def _print_all(gpus: tuple["GpuType", ...]) -> None:
    width = max(len(gpu.name) for gpu in gpus)
    typer.echo(
        f"{'GPU':<{width}} {'GiB':>4} {'idle W':>6} {'max W':>6} {'limit W':>9} {'TFLOP/s':>8} {'speed':>6} USD/h"
    )
    for gpu in gpus:
        limits = f"{gpu.min_power_limit_w:g}-{gpu.max_power_limit_w:g}"
        price = "-" if gpu.price_usd_per_hour is None else f"{gpu.price_usd_per_hour:.2f}"
        typer.echo(
            f"{gpu.name:<{width}} {gpu.memory_gib:>4g} {gpu.idle_power_w:>6.0f} {gpu.max_power_w:>6g} {limits:>9} "
            f"{gpu.fp32_tflops:>8g} {gpu.speed['general']:>6.2f} {price:>5}"
        )
    typer.echo("\nTFLOP/s in FP32; speed of a general job, V100 SXM2 = 1. In full, with sources: lepton-rl gpus NAME")


def _print_one(gpu: "GpuType") -> None:
    from lepton_rl.core.hardware import JOB_CLASSES, aliases

    also = aliases(gpu.name)
    typer.echo(gpu.name + (f", also: {', '.join(also)}" if also else ""))
    rows = [
        (label, f"{getattr(gpu, figure):g} {unit}", gpu.sources[figure])
        for figure, (label, unit) in FIGURES.items()
        if getattr(gpu, figure) is not None
    ]
    rows += [(f"speed, {name}", f"{gpu.speed[name]:g}", gpu.sources[f"speed.{name}"]) for name in JOB_CLASSES]
    curve = gpu.power_curve
    rows.append(("power curve", f"floor {curve.floor_w:g} W, exponent {curve.exponent:g}", gpu.sources["power_curve"]))
    width, column = (max(len(row[i]) for row in rows) for i in (0, 1))
    for label, value, source in rows:
        typer.echo(f"{label:<{width}}  {value:<{column}}  {source}")
