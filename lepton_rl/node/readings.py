"""Telemetry of a node for people: every reading as CSV, or a line for each GPU."""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from lepton_rl.devices.history import TelemetryRow, read_history, read_identities, write_csv
from lepton_rl.errors import NodeError
from lepton_rl.node.paths import HISTORY


def print_csv(state_dir: Path, since: float) -> None:
    """Print every reading since a moment (Unix seconds).

    Raises:
        NodeError: there is no history.
    """
    write_csv(read_history(_history(state_dir), since), sys.stdout)


def print_summary(state_dir: Path, since: float) -> None:
    """Print for each GPU the mean and the highest of what matters since a moment.

    Raises:
        NodeError: there is no history.
    """
    path = _history(state_dir)
    identities = read_identities(path)
    heads = f"{'util., mean':>11} {'memory GiB, most':>16} {'W, mean':>8} {'W, most':>8} {'°C, most':>8}"
    print(f"{'GPU':<4} {'readings':>8} {heads} name")
    for identity in identities:
        rows = list(read_history(path, since, identity.uuid))
        print(
            f"{identity.index:<4} {len(rows):>8} {_said(rows, fmean, 'utilisation', 100, '%'):>11} "
            f"{_said(rows, max, 'memory_used_bytes', 1 / 2**30):>16} {_said(rows, fmean, 'power_mw', 1e-3):>8} "
            f"{_said(rows, max, 'power_mw', 1e-3):>8} {_said(rows, max, 'temperature_c', 1):>8} {identity.name}"
        )


def _history(state_dir: Path) -> Path:
    if not (state_dir / HISTORY).is_file():
        raise NodeError(f"{state_dir}: there is no telemetry of a node here; name the state of one with --state")
    return state_dir / HISTORY


def _said(
    rows: list[TelemetryRow], what: Callable[[list[float]], float], name: str, factor: float, unit: str = ""
) -> str:
    values = [float(value) for row in rows if (value := getattr(row.filtered, name)) is not None]
    return f"{what(values) * factor:.0f}{unit}" if values else "-"
