"""Models of requested times."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.errors import ConfigError
from lepton_rl.workloads import Trace, lublin
from lepton_rl.workloads.requested import popular_maximum, tsafrir

MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture(scope="module")
def trace() -> Trace:
    return lublin(10_000, 256, seed=5)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_exact_given_and_absent(trace: Trace) -> None:
    assert trace.with_requested("given") is trace
    noisy = trace.with_requested("noisy:0.5", rng=rng())
    exact = noisy.with_requested("exact")
    assert exact.requested == "exact"
    assert exact.requested_time.tolist() == trace.run_time.tolist()
    absent = trace.with_requested("absent")
    assert absent.requested == "absent"
    assert np.isnan(absent.requested_time).all()


def test_notes_speak_of_the_requested_times_that_there_are() -> None:
    columns = {"submit_time": [0.0, 1.0], "run_time": [5.0, 6.0], "gpus": [1.0, 1.0]}
    bare = Trace.from_columns(columns, notes=["another note"])
    partly = Trace.from_columns({**columns, "requested_time": [9.0, math.nan]}, notes=["another note"])
    for trace in (bare, partly, bare.with_requested("tsafrir")):
        for mode, word in (("exact", "clairvoyant"), ("noisy:0.5", "sigma 0.5"), ("tsafrir", "Tsafrir")):
            first, second = trace.with_requested(mode).notes
            assert first == "another note"
            assert word in second
        assert trace.with_requested("absent").notes == ("another note",)
    assert "clairvoyant" in bare.with_requested("given").notes[-1]


def test_noisy_has_the_spread_asked_for(trace: Trace) -> None:
    noisy = trace.with_requested("noisy", sigma=0.5, rng=rng())
    error = np.log(noisy.requested_time / noisy.run_time)
    assert noisy.requested == "noisy:0.5"
    assert abs(error.mean()) < 0.02
    assert error.std() == pytest.approx(0.5, abs=0.02)
    assert "sigma 0.5" in noisy.notes[-1]
    assert noisy == trace.with_requested("noisy:0.5", rng=rng())
    assert trace.with_requested("noisy:0").requested_time.tolist() == trace.run_time.tolist()


def test_tsafrir_estimates_are_modal_and_never_too_short(trace: Trace) -> None:
    result = trace.with_requested("tsafrir", rng=rng())
    estimates = result.requested_time
    assert (estimates >= trace.run_time).all()
    values, counts = np.unique(estimates, return_counts=True)
    order = np.argsort(-counts)
    head = counts[order[:20]].sum() / len(trace)
    # 20 values make up 89 % of the estimates, and the maximum is the most popular (Tsafrir et al., fig. 2)
    assert head == pytest.approx(0.89, abs=0.015)
    assert values[order[0]] == estimates.max() == popular_maximum(trace.run_time.max())
    assert counts[order[0]] / len(trace) == pytest.approx(0.217, abs=0.005)
    assert len(values) == pytest.approx(90, abs=5)  # that many different values in 10,000 jobs
    assert {15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR} <= set(values[order[:20]])
    assert result == trace.with_requested("tsafrir", rng=rng())
    assert result != trace.with_requested("tsafrir", rng=rng(2))


@given(st.lists(st.floats(0.001, 1e7), min_size=1, max_size=300), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_tsafrir_holds_for_any_run_times(run_times: list[float], seed: int) -> None:
    estimates = tsafrir(np.array(run_times), rng(seed))
    assert len(estimates) == len(run_times)
    assert (estimates >= np.array(run_times)).all()
    assert estimates.max() <= popular_maximum(max(run_times))


def test_tsafrir_with_a_maximum_of_ones_own() -> None:
    run_times = np.full(1000, 60.0)
    assert tsafrir(run_times, rng(), maximum=18 * HOUR).max() == 18 * HOUR
    for maximum in (HOUR, 30.0):
        with pytest.raises(ConfigError, match="it must be at least 7200 s"):
            tsafrir(run_times, rng(), maximum=maximum)


@pytest.mark.parametrize(
    ("longest", "maximum"),
    [(1.0, 2 * HOUR), (7200.0, 2 * HOUR), (7201.0, 3 * HOUR), (86400.0, 24 * HOUR), (86401.0, 48 * HOUR)],
)
def test_the_default_maximum_is_round(longest: float, maximum: float) -> None:
    assert popular_maximum(longest) == maximum


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("nois", "no such mode; did you mean 'noisy'\\?; known: given, exact, noisy:SIGMA, tsafrir, absent"),
        ("exact:1", "no such mode"),
        ("noisy:x", "'x' is no number"),
        ("noisy", "need a sigma"),
        ("noisy:-1", "sigma is -1; it must lie between 0 and 10"),
        ("noisy:nan", "sigma is nan"),
    ],
)
def test_bad_modes(trace: Trace, mode: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trace.with_requested(mode)


def test_windows_keep_what_was_requested(trace: Trace) -> None:
    result = trace.with_requested("tsafrir", rng=rng())
    window = result.window(100, 50)
    assert window.requested_time.tolist() == result.requested_time[100:150].tolist()
    assert not math.isnan(window.requested_time.sum())
