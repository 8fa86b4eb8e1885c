"""Reading hourly prices and carbon intensities."""

import gzip
from pathlib import Path

import pytest

from lepton_rl.errors import TraceError
from lepton_rl.workloads.tariffs import read_carbon_intensity, read_electricity_prices

PLAIN = "time,price_usd_per_mwh\n2023-01-01 00:00,50\n2023-01-01 01:00,-10.5\n\n2023-01-01T02:00Z,100\n"
PUBLISHED = (
    "Datetime (UTC),Datetime (Local),Price (USD/MWh)\n"
    "2023-01-01 00:30:00+00:00,2023-01-01 06:00:00+05:30,45.9\n"
    "2023-01-01 01:30:00+00:00,2023-01-01 07:00:00+05:30,59.7\n"
)


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plain_file(tmp_path: Path) -> None:
    series = read_electricity_prices(written(tmp_path, PLAIN))
    assert series.name == str(tmp_path / "prices.csv")
    assert series.values.tolist() == [50.0, -10.5, 100.0]
    assert series.seconds == 10800.0


def test_a_published_file_whose_hours_begin_at_half_past(tmp_path: Path) -> None:
    path = tmp_path / "IN-WE.csv.gz"
    path.write_bytes(gzip.compress(PUBLISHED.encode()))
    assert read_electricity_prices(path).values.tolist() == [45.9, 59.7]


def test_local_times_are_told_apart_by_their_zone(tmp_path: Path) -> None:
    # the night in October when a local clock shows 2:00 twice
    text = "time,carbon_g_per_kwh\n2023-10-29 02:00+02:00,10\n2023-10-29 02:00+01:00,20\n"
    assert read_carbon_intensity(written(tmp_path, text)).values.tolist() == [10.0, 20.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"prices.csv: there are no hours below a header line: time,price_usd_per_mwh"),
        ("time,price_usd_per_mwh\n", r"there are no hours below a header line"),
        ("time,price\n", r"prices.csv:1: there is no column 'price_usd_per_mwh' or 'Price \(USD/MWh\)'"),
        ("tme,price_usd_per_mwh\n", r":1: there is no column 'time' .*; did you mean 'time'"),
        (PLAIN + "2023-01-01 05:00,1\n", r"prices.csv:6: 2 hours missing before 2023-01-01 05:00; fill the gap"),
        (PLAIN + "2023-01-01 02:00,1\n", r":6: 2023-01-01 02:00 is not after 2023-01-01 02:00, the hour above it"),
        (PLAIN + "2023-01-01 02:30,1\n", r":6: 2023-01-01 02:30 is not one hour after 2023-01-01 02:00"),
        (PLAIN + "2023-01-01 04:30,1\n", r":6: 2023-01-01 04:30 is not one hour after 2023-01-01 02:00"),
        (PLAIN + "yesterday,1\n", r":6: 'yesterday' is not a time; write one as 2023-01-31 14:00"),
        (PLAIN + "2023-01-01 03:00,much\n", r":6: 'much' is not a number"),
        (PLAIN + "2023-01-01 03:00,nan\n", r":6: 'nan' is not a number"),
        (PLAIN + "2023-01-01 03:00\n", r":6: 1 fields; the header has more columns"),
        ('time,price_usd_per_mwh\n"2023', r":2: not CSV"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read_electricity_prices(written(tmp_path, text))


def test_a_negative_carbon_intensity_is_refused(tmp_path: Path) -> None:
    text = "time,carbon_g_per_kwh\n2023-01-01 00:00,50\n2023-01-01 01:00,-1\n"
    with pytest.raises(TraceError, match=r"prices.csv:3: a carbon intensity of -1 g/kWh is not within 0 to 10,000"):
        read_carbon_intensity(written(tmp_path, text))


# From the data's own SOURCE.md: mean price, hours below 0, mean carbon.
REGIONS = {
    "US-CAL-CISO": (61.5, 149, 261), "US-TEX-ERCO": (55.9, 0, 381), "DE-LU": (102.6, 292, 367), "CA-ON": (20.0, 2, 73),
    "IN-WE": (61.9, 0, 749), "AU-NSW": (96.0, 467, 554),
}  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize("region", REGIONS)
def test_published_regions(data: Path, region: str) -> None:
    folder = data / "grid_carbon_price"
    prices = read_electricity_prices(folder / "electricity_price" / f"{region}_electricity_prices_2023.csv.gz")
    carbon = read_carbon_intensity(folder / "carbon_intensity" / f"{region}_2023_hourly.csv.gz")
    price, negative, grams = REGIONS[region]
    assert prices.values.mean() == pytest.approx(price, abs=0.05)
    assert len(prices.negative_hours()) == negative
    assert carbon.values.mean() == pytest.approx(grams, abs=0.5)
    assert prices.seconds == carbon.seconds == 8760 * 3600


def test_prices_beyond_reason_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "time,price_usd_per_mwh\n2023-01-01 00:00,1e308\n")
    with pytest.raises(TraceError, match=r"prices.csv:2: a price of 1e308 USD/MWh is not within -10,000 to 100,000"):
        read_electricity_prices(path)
