"""The files that come with this package, as they are stored: datasheet figures of GPU types, and coefficients."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def shipped(name: str) -> Any:
    """Return a YAML file of this package, read once; it is not to be changed."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(files(__package__).joinpath(name).read_text(encoding="utf-8"), Loader=loader)


def entries() -> Mapping[str, Mapping[str, Any]]:
    """Return what the catalogue states of each GPU type."""
    gpus: Mapping[str, Mapping[str, Any]] = shipped("catalogue.yaml")["gpus"]
    return gpus


def source_text(key: str) -> str:
    """Return the text of one of the catalogue's sources."""
    return str(shipped("catalogue.yaml")["sources"][key])


def datasheet_figure(name: str, figure: str) -> float:
    """Return a figure that the catalogue itself states of a GPU type: what the fits may start from."""
    return float(entries()[name][figure])


def siblings(name: str) -> list[str]:
    """Return the other GPU types on the same chip."""
    chip = entries()[name].get("chip")
    return [other for other, entry in entries().items() if chip and other != name and entry.get("chip") == chip]
