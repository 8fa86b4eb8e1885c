"""The built-in GPU types, by name: `catalogue.yaml` with the fitted coefficients and the rules for what is unknown."""

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from lepton_rl.core.hardware.gpu_type import GpuType
from lepton_rl.core.hardware.rules import DATASHEET_FIGURES, OPTIONAL_FIGURES, Completion
from lepton_rl.core.hardware.shipped import entries, siblings, source_text
from lepton_rl.errors import ConfigError, nearest

_MAKERS = re.compile(r"\b(nvidia|geforce|tesla)\b")


def gpu_types() -> tuple[GpuType, ...]:
    """Return the built-in GPU types, oldest first within each line of products."""
    return tuple(_catalogue().values())


def gpu_type(name: str) -> GpuType:
    """Return a built-in GPU type by its name or an alias, as people or NVML write it; case and signs do not count.

    Raises:
        ConfigError: there is none.
    """
    found = _names().get(_plain(name))
    if found is None:
        known = [gpu.name for gpu in gpu_types()]
        raise ConfigError(
            f"no GPU type is called {name!r}{nearest(name, [*known, *_aliases()])} (`lepton-rl gpus` lists them)"
        )
    return _catalogue()[found]


def aliases(name: str) -> tuple[str, ...]:
    """Return the other names of a built-in GPU type."""
    return tuple(entries()[gpu_type(name).name].get("aliases", ()))


def make_gpu_type(name: str, figures: Mapping[str, float], source: str = "given by the user") -> GpuType:
    """Return a GPU type from figures of one's own; what is left out follows the catalogue's rules.

    Args:
        name: of the type.
        figures: those of DATASHEET_FIGURES, and any other number of a `GpuType` by its name.
        source: where the figures are from.

    Raises:
        ConfigError: a figure is missing, unknown or out of its range.
    """
    known = (*DATASHEET_FIGURES, *OPTIONAL_FIGURES)
    for figure in figures:
        if figure not in known:
            raise ConfigError(f"GPU {name!r} has no figure called {figure!r}{nearest(figure, known)}")
    missing = [figure for figure in DATASHEET_FIGURES if figure not in figures]
    if missing:
        raise ConfigError(f"GPU {name!r}: {', '.join(missing)} must be given")
    for figure in DATASHEET_FIGURES:
        if not 0 < figures[figure] < math.inf:
            raise ConfigError(f"GPU {name!r}: {figure} must be above 0, not {figures[figure]}")
    return Completion(name, dict(figures), dict.fromkeys(figures, source)).build()


@cache
def _catalogue() -> Mapping[str, GpuType]:
    return {name: _from_entry(name, entry) for name, entry in entries().items()}


def _from_entry(name: str, entry: Mapping[str, Any]) -> GpuType:
    figures = {figure: float(entry[figure]) for figure in (*DATASHEET_FIGURES, *OPTIONAL_FIGURES) if figure in entry}
    sources = dict.fromkeys(DATASHEET_FIGURES, source_text(entry["datasheet"]))
    for part, covered in (
        ("limits", ("min_power_limit_w", "max_power_limit_w")),
        ("idle", ("idle_power_w",)),
        ("heat", ("throttle_temperature_c",)),
    ):
        sources |= {figure: source_text(entry[part]) for figure in covered if figure in figures}
    return Completion(name, figures, sources, siblings(name)).build()


def _aliases() -> list[str]:
    return [alias for entry in entries().values() for alias in entry.get("aliases", ())]


@cache
def _names() -> Mapping[str, str]:
    names: dict[str, str] = {}
    for name, entry in entries().items():
        for word in (name, *entry.get("aliases", ())):
            if names.setdefault(_plain(word), name) != name:
                raise AssertionError(f"{word!r} names two GPU types")
    return names


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", _MAKERS.sub("", name.lower()))
