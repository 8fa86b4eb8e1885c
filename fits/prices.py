"""Rent of a GPU for an hour: the median over suppliers of their median offer on demand."""

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from fits.sources import csv_rows

NAMES = {
    "V100": "V100-SXM2-16GB", "A30": "A30", "L4": "L4", "L40S": "L40S", "RTX6000": "Quadro RTX 6000",
    "RTXA6000": "RTX A6000", "A6000": "RTX A6000", "RTX-6000-Ada": "RTX 6000 Ada", "RTX4090": "RTX 4090",
    "RTX PRO 6000 96GB": "RTX PRO 6000", "RTX-PRO-6000": "RTX PRO 6000", "A100-80GB": "A100-SXM4-80GB",
    "H100": "H100-SXM5", "H200": "H200-SXM", "B200": "B200-SXM",
}  # fmt: skip
"""Names of the table by the GPU type of the catalogue."""
A100_BY_PROVIDER = {"seeweb": "A100-SXM4-80GB", "lambda": "A100-SXM4-40GB"}
"""The table calls both "A100"; which supplier offers which is in its SOURCE.md."""


def fit_prices(data: Path) -> dict[str, Any]:
    """Return the `price_usd_per_hour` part of the coefficients."""
    offers: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in csv_rows(data / "gpu_rental_prices/gpu_rental_prices_extract.csv"):
        name = A100_BY_PROVIDER.get(row["provider"]) if row["gpu"] == "A100" else NAMES.get(row["gpu"])
        if name and row["price_usd_per_h"]:
            offers[name][row["provider"]].append(float(row["price_usd_per_h"]) / int(row["gpu_count"]))
    return {
        name: {
            "value": round(median(median(prices) for prices in suppliers.values()), 3),
            "basis": (
                f"on demand, median of {len(suppliers)} supplier{'s' if len(suppliers) > 1 else ''} "
                f"({', '.join(sorted(suppliers))}), 2025-2026, from skypilot-org/skypilot-catalog"
            ),
        }
        for name, suppliers in offers.items()
    }
