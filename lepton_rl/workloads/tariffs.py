"""Readers of hourly electricity prices and carbon intensities.

Two forms are known by their columns: the files of SustainCluster's grid data, as published, and a plain CSV with
`time` (ISO 8601; UTC where it names no zone) and `price_usd_per_mwh` or `carbon_g_per_kwh`. Rows are one hour apart,
none missing; hours that begin at another minute than 0 (India) are read as if they began on the hour.
"""

import csv
import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lepton_rl.core.hardware.tariffs import HourlySeries
from lepton_rl.errors import TraceError, counted, nearest
from lepton_rl.workloads.files import read_text

TIME_COLUMNS = ("time", "Datetime (UTC)")
PRICE_COLUMNS = ("price_usd_per_mwh", "Price (USD/MWh)")
CARBON_COLUMNS = ("carbon_g_per_kwh", "Carbon Intensity gCO₂eq/kWh (LCA)")
PRICES = (-1e4, 1e5)
"""USD/MWh: the range of a price; markets cap theirs well within it."""
INTENSITIES = (0.0, 1e4)
"""gCO2eq/kWh."""
_HOUR = timedelta(hours=1)


def read_electricity_prices(path: Path) -> HourlySeries:
    """Read hourly prices, USD/MWh; a price below 0 is real and kept (`HourlySeries.negative_report` names them).

    Raises:
        TraceError: the file is not such a series.
    """
    return _read(path, PRICE_COLUMNS, PRICES)


def read_carbon_intensity(path: Path) -> HourlySeries:
    """Read hourly carbon intensities, gCO2eq/kWh over the life cycle.

    Raises:
        TraceError: the file is not such a series, or an intensity is below 0.
    """
    return _read(path, CARBON_COLUMNS, INTENSITIES)


def _read(path: Path, value_columns: Sequence[str], bounds: tuple[float, float]) -> HourlySeries:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    values: list[float] = []
    columns: tuple[int, int] | None = None
    hour: datetime | None = None
    try:
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if not any(field.strip() for field in row):
                continue
            if columns is None:
                header = [name.strip() for name in row]
                columns = _column(place, header, TIME_COLUMNS), _column(place, header, value_columns)
                continue
            if len(row) <= max(columns):
                raise TraceError(f"{place}: {len(row)} fields; the header has more columns")
            hour = _next_hour(place, row[columns[0]].strip(), hour)
            values.append(_value(place, row[columns[1]].strip(), bounds))
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    if not values:
        raise TraceError(f"{path}: there are no hours below a header line: {TIME_COLUMNS[0]},{value_columns[0]}")
    return HourlySeries.of(values, str(path))


def _column(place: str, header: Sequence[str], names: Sequence[str]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    hint = next((text for name in header if (text := nearest(name, names))), "")
    raise TraceError(f"{place}: there is no column {names[0]!r} or {names[1]!r}{hint}")


def _next_hour(place: str, text: str, before: datetime | None) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(f"{place}: {text!r} is not a time; write one as 2023-01-31 14:00") from None
    time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    if before is None or time - before == _HOUR:
        return time
    if time <= before:
        raise TraceError(f"{place}: {text} is not after {before:%Y-%m-%d %H:%M}, the hour above it (UTC)")
    missing = (time - before) / _HOUR - 1
    if missing < 1 or missing != int(missing):
        raise TraceError(f"{place}: {text} is not one hour after {before:%Y-%m-%d %H:%M}, the hour above it (UTC)")
    raise TraceError(f"{place}: {counted(int(missing), 'hour')} missing before {text}; fill the gap")


def _value(place: str, text: str, bounds: tuple[float, float]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise TraceError(f"{place}: {text!r} is not a number")
    if not bounds[0] <= value <= bounds[1]:
        what, unit = ("a price", "USD/MWh") if bounds == PRICES else ("a carbon intensity", "g/kWh")
        raise TraceError(f"{place}: {what} of {text} {unit} is not within {bounds[0]:,g} to {bounds[1]:,g}")
    return value
