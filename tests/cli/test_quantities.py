"""Amounts as people write them."""

import time
from datetime import datetime, timedelta

import hypothesis.strategies as st
import pytest
import typer
from hypothesis import given

from lepton_rl.cli.quantities import ago, mebibytes, moment, seconds, share
from lepton_rl.node.durations import lasting


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1h30m", 5400), ("1d", 86_400), ("1w", 604_800)],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text, "--option") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20GiB", 20_480), ("20G", 20_480), ("512MiB", 512), ("0.5g", 512), ("1TB", 953_674), ("1M", 1)],
)
def test_memory(text: str, expected: int) -> None:
    assert mebibytes(text, "--option") == expected


@pytest.mark.parametrize("text", ["", "h", "-1h", "0", "1x", "1 h", "1e3", "9" * 400, "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="duration"):
        seconds(text, "--option")


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0GiB", "12KiB", "9" * 400, "nan"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="no amount of memory"):
        mebibytes(text, "--option")


def test_an_amount_of_memory_has_a_unit() -> None:
    with pytest.raises(
        typer.BadParameter, match="'20' is no amount of memory without a unit; write it as 20GiB or 20MiB"
    ):
        mebibytes("20", "--option")


def test_moments() -> None:
    now = time.time()
    assert moment("+2h", "--option") == pytest.approx(now + 7200, abs=5)
    assert ago("1h", "--option") == pytest.approx(now - 3600, abs=5)
    assert moment("2030-12-01T08:00", "--option") == datetime(2030, 12, 1, 8).timestamp()
    soon = datetime.now() + timedelta(minutes=2)
    assert 0 < moment(soon.strftime("%H:%M"), "--option") - now <= 120
    past = datetime.now() - timedelta(minutes=2)
    assert 86_000 < moment(past.strftime("%H:%M"), "--option") - now < 86_400


@pytest.mark.parametrize("text", ["", "tomorrow", "25:00", "2026-13-01", "+", "12:60"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment(text, "--option")


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(None, "-"), (0.0, "0 s"), (59.9, "59 s"), (200.0, "3:20"), (7500.0, "2:05:00"), (273_600.0, "3 d 4 h")],
)
def test_durations_for_people(duration: float | None, expected: str) -> None:
    assert lasting(duration) == expected


@given(text=st.text(alphabet="0123456789.+-:smhdwgGiB TeE", max_size=40))
def test_any_text_is_an_amount_or_refused_in_a_sentence(text: str) -> None:
    for read in (seconds, mebibytes, moment):
        try:
            assert read(text, "--option") > -1e10
        except typer.BadParameter as refused:
            assert "is no " in refused.message or "must be above 0" in refused.message  # noqa: PT017


def test_what_is_wrong_names_its_option() -> None:
    for read, text in (
        (seconds, "x"),
        (seconds, "0"),
        (mebibytes, "20"),
        (mebibytes, "x"),
        (moment, "+x"),
        (share, "2"),
    ):
        with pytest.raises(typer.BadParameter) as caught:
            read(text, "--since")
        assert caught.value.format_message().startswith("Invalid value for --since: ")
