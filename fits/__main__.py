"""`python -m fits`: find every coefficient anew, print it with its error, and on `--write` replace the shipped file."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fits.power_limit import fit_power_limit, fit_rules
from fits.prices import fit_prices
from fits.sharing import fit_interference, fit_locality
from fits.speed import fit_speed
from lepton_rl.core.atomic import replacing
from lepton_rl.errors import LeptonError
from lepton_rl.workloads import data_folder

SHIPPED = Path(__file__).parents[1] / "lepton_rl" / "core" / "hardware" / "coefficients.yaml"
HEADER = """\
# Written by `python -m fits --write` from gavel_throughputs (MIT), zeus_power (Apache-2.0), elasticflow_throughputs
# (Apache-2.0), the -aws files of sia_pollux_profiles (Apache-2.0) and the published prices of gpu_rental_prices.
# docs/hardware.md says what each part means.
"""


def find_coefficients(data: Path) -> dict[str, Any]:
    """Return what the shipped file holds, found anew."""
    return {
        "speed": fit_speed(data),
        "power_limit": fit_power_limit(data),
        "rules": fit_rules(data),
        "price_usd_per_hour": fit_prices(data),
        "interference": fit_interference(data),
        "locality": fit_locality(data),
    }


def as_text(found: Mapping[str, Any]) -> str:
    """Return the coefficients as YAML."""
    return yaml.safe_dump(dict(found), sort_keys=False, allow_unicode=True, width=118)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the coefficients, and write them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m fits", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"rewrite {SHIPPED.name} of lepton_rl.core.hardware")
    chosen = parser.parse_args(arguments)
    try:
        data = data_folder()
        if data is None:
            raise LeptonError("no folder of measurements: set LEPTON_RL_DATA, or put it at ../shared/data")
        text = as_text(find_coefficients(data))
    except (LeptonError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(text)
    if chosen.write:
        with replacing(SHIPPED) as draft:
            draft.write_text(HEADER + text, encoding="utf-8")
        print(f"written: {SHIPPED.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
