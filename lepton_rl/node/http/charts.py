"""The recent past of the GPUs, from the telemetry history, thinned for charts."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lepton_rl.devices.history import read_history

LONGEST_S = 3600.0
MOST_POINTS = 600
CHARTED = ("utilisation", "power_mw", "temperature_c")


class Charts:
    """Reads the history that the daemon writes.

    Args:
        history: its file.
        uuids: of GPU 0, 1, ...
        now: Unix seconds.
    """

    def __init__(self, history: Path, uuids: tuple[str, ...], now: Callable[[], float] = time.time) -> None:
        self._history, self._uuids, self._now = history, uuids, now

    def readings(self, since: float, last_s: float | None = None) -> dict[str, Any]:
        """Return the readings after a moment, or of the last seconds; at most an hour, and MOST_POINTS of each GPU.

        Raises:
            HistoryError: there is no history.
        """
        now = self._now()
        begin = max((now - LONGEST_S, since if last_s is None else now - last_s), key=_or_lowest)
        points: dict[str, dict[str, list[Any]]] = {
            uuid: {name: [] for name in ("time", *CHARTED)} for uuid in self._uuids
        }
        for row in read_history(self._history, begin):
            series = points.get(row.raw.uuid)
            if series is None or row.raw.time <= begin:
                continue
            series["time"].append(row.raw.time)
            for name in CHARTED:
                series[name].append(getattr(row.filtered, name))
        return {
            "time": now,
            "gpus": [
                {"gpu": number, "uuid": uuid, **{name: _thinned(values) for name, values in points[uuid].items()}}
                for number, uuid in enumerate(self._uuids)
            ],
        }


def _or_lowest(moment: float) -> float:
    return -math.inf if math.isnan(moment) else moment


def _thinned(values: list[Any]) -> list[Any]:
    """Every k-th value, the newest among them."""
    step = -(-len(values) // MOST_POINTS) or 1
    return values[::-1][::step][::-1]
