"""The shipped coefficients are what the fits find; the fits find what is put into made-up data."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fits.__main__ import main
from fits.power_limit import Settings, fit_curve, fitted_speed, held_share
from fits.speed import bounded_least_squares
from lepton_rl.core.hardware.coefficients import coefficients
from lepton_rl.core.hardware.shipped import shipped

CAPTURE = pytest.CaptureFixture[str]


def test_exponents_stay_within_their_bounds() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    for weights, expected in (
        ((0.3, 0.5), (0.3, 0.5)),  # inside: as it is
        ((0.9, 0.9), (0.5, 0.5)),  # on the side where the sum is 1
        ((0.8, -0.4), (None, 0.0)),
        ((-1.0, -1.0), (0.0, 0.0)),
    ):
        found = bounded_least_squares(x, x @ np.array(weights))
        assert all(want is None or got == pytest.approx(want, abs=0.15) for got, want in zip(found, expected,
                                                                                              strict=True))  # fmt: skip
        assert (found >= 0).all()
        assert found.sum() <= 1 + 1e-9
    # no point of a fine grid over the bounds is better
    y = x @ np.array([1.2, 0.4]) + rng.normal(size=40)
    best = float(((x @ bounded_least_squares(x, y) - y) ** 2).sum())
    grid = np.linspace(0, 1, 101)
    assert all(((x @ np.array([a, b]) - y) ** 2).sum() >= best - 1e-9 for a in grid for b in grid if a + b <= 1)


def made_up(floor: float, exponent: float) -> Settings:
    limits = np.tile(np.arange(100.0, 301.0, 25.0), 4)
    natural = np.repeat([80.0, 150.0, 220.0, 290.0], 9)
    empty = Settings(100.0, limits, natural, np.minimum(limits, natural), np.ones(36))
    return Settings(100.0, limits, natural, empty.power_w, fitted_speed(empty, floor, exponent))


@pytest.mark.parametrize(("floor", "exponent"), [(0.0, 1.5), (0.6, 2.4), (0.9, 1.0)])
def test_a_curve_is_found_again(floor: float, exponent: float) -> None:
    found = fit_curve([made_up(floor, exponent)])
    assert found[0] == pytest.approx(floor, abs=0.01)
    assert found[1] == pytest.approx(exponent, abs=0.02)


def test_a_card_that_overruns_its_lowest_limit() -> None:
    held = made_up(0.5, 2.0)
    assert held_share(held) == 1.0
    overrun = Settings(held.lowest_w, held.limit_w, held.natural_w, np.maximum(held.power_w, 107.0), held.speed)
    assert held_share(overrun) == 1.07


def test_without_data_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: CAPTURE) -> None:
    monkeypatch.setenv("LEPTON_RL_DATA", str(tmp_path / "nowhere"))
    assert main([]) == 2
    assert capsys.readouterr().err == (
        "error: no folder of measurements: set LEPTON_RL_DATA, or put it at ../shared/data\n"
    )


def numbers(value: Any, path: str = "") -> dict[str, Any]:
    """Return the numbers and texts of a tree by their path."""
    if isinstance(value, dict):
        return {key: leaf for name, entry in value.items() for key, leaf in numbers(entry, f"{path}/{name}").items()}
    if isinstance(value, list):
        return {key: leaf for i, entry in enumerate(value) for key, leaf in numbers(entry, f"{path}/{i}").items()}
    return {path: value}


@pytest.mark.data
@pytest.mark.usefixtures("data")
def test_the_shipped_coefficients_are_what_the_fits_find(capsys: CAPTURE) -> None:
    assert main([]) == 0
    found, stored = numbers(yaml.safe_load(capsys.readouterr().out)), numbers(shipped("coefficients.yaml"))
    assert found.keys() == stored.keys()
    for path, value in stored.items():
        if isinstance(value, str):
            assert found[path] == value, path
        else:
            assert found[path] == pytest.approx(value, rel=5e-3, abs=2e-3), path


PAGE = (Path(__file__).parents[2] / "docs" / "hardware.md").read_text(encoding="utf-8")
CARDS = {
    "P100-PCIe": "P100 PCIe", "V100-PCIe-32GB": "V100 PCIe", "Quadro RTX 6000": "Quadro RTX 6000", "A40": "A40",
    "generic": "generic, for all others", "K80": "K80", "default": "V100 SXM2, and the default",
}  # fmt: skip


def test_the_page_states_the_shipped_coefficients() -> None:
    fitted = coefficients()
    for name, fit in fitted.speed.items():
        inside, left_out = re.findall(r"(\d+) %", fitted.speed_basis[name])
        count = fitted.speed_basis[name].split()[0]
        row = f"| `{name}` | {fit.fp32} | {fit.bandwidth} | {count} | {inside} % | {left_out} % |"
        assert row in PAGE
    for name, curve in fitted.power.items():
        assert f"| {CARDS[name]} | {curve.floor_share:g} | {curve.exponent:g} | " in PAGE
        for error in re.findall(r"0\.\d{3}|\d+\.\d %", curve.basis):
            assert error in PAGE
    for name in ("K80", "P100-PCIe", "default"):
        entry = fitted.interference[name]
        pairs, speed, error = re.findall(r"(\d+) pairs.* at (0\.\d+) .*error (0\.\d+)", entry.basis)[0]
        assert f"| {CARDS[name]} | {entry.value} | {pairs} | {speed} | {error} |" in PAGE
    assert f"Default: {fitted.locality.nodes.slowdowns[1]} from two nodes on" in PAGE
    assert f"rule: {fitted.idle_share.value} of the maximum power" in PAGE
    assert f"from {fitted.limit_share.value} of the maximum power" in PAGE
