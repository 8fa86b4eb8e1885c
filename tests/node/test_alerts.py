"""Alerts on recorded readings: each at its onset, once, and over when its reason is."""

import logging
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from lepton_rl.devices import DeviceIdentity, Reading, Recorder, ReplayDevices, Sampler
from lepton_rl.node.alerts import AlertRules, Alerts

RULES = AlertRules(
    idle_power_w=150.0, idle_power_s=10.0, hot_c=75.0, rise_c_per_min=20.0, rise_window_s=15.0, throttling_s=5.0,
    failed_jobs=3, of_jobs=5, fallbacks=2, of_decisions=4,
)  # fmt: skip
GPU = DeviceIdentity(0, "GPU-0", "NVIDIA X", max_power_limit_mw=400_000)


def play(
    folder: Path, reading: Callable[[int], Reading], seconds: int, held: Collection[str] = ()
) -> list[tuple[int, str, str]]:
    """Record a reading a second, play it, and return (second, "on" or "off", rule) of each onset and end."""
    path = folder / "recording.jsonl"
    with Recorder(path, [GPU], "570.86", simulated=True) as recorder:
        for second in range(seconds):
            recorder.reading(reading(second))
    alerts, active, changes = Alerts(RULES), set[str](), []
    with ReplayDevices(path, speed=0.0) as devices:
        sampler = Sampler(devices, window=1)
        for second in range(seconds):
            devices.seek(devices.start_time + second)
            snapshot = sampler.sample(1000.0 + second, float(second), with_processes=False)
            alerts.update(snapshot.devices, held, float(second), 1000.0 + second)
            now = {alert.rule for alert in alerts.active}
            changes += [(second, "on", rule) for rule in sorted(now - active)]
            changes += [(second, "off", rule) for rule in sorted(active - now)]
            active = now
    return changes


def at(second: int, watts: float = 60.0, celsius: float = 40.0, *reasons: str) -> Reading:
    """Return what the GPU said at a second."""
    return Reading(
        "GPU-0", 1000.0 + second, power_mw=round(watts * 1e3), temperature_c=round(celsius), throttle_reasons=reasons
    )


def test_draw_without_work_is_told_after_a_while_and_ends_with_it(tmp_path: Path) -> None:
    changes = play(tmp_path, lambda second: at(second, watts=200.0 if 5 <= second < 30 else 60.0), 40)
    assert changes == [(15, "on", "idle_power"), (30, "off", "idle_power")]


def test_a_short_draw_and_one_under_a_job_are_nothing(tmp_path: Path) -> None:
    assert play(tmp_path, lambda second: at(second, watts=200.0 if second % 10 else 60.0), 40) == []
    assert play(tmp_path, lambda second: at(second, watts=300.0), 40, held={"GPU-0"}) == []


def test_a_runaway_is_hot_and_gets_hotter_fast(tmp_path: Path) -> None:
    changes = play(tmp_path, lambda second: at(second, celsius=min(60.0 + 0.5 * second, 90.0)), 80, held={"GPU-0"})
    # 75 °C after 30 s at 30 °C a minute; 90 °C after 60 s, and at 65 s the window of 15 s has seen 5 °C of rise
    assert changes == [(30, "on", "thermal_runaway"), (65, "off", "thermal_runaway")]


def test_a_warm_up_below_the_bound_and_a_slow_rise_above_it_are_nothing(tmp_path: Path) -> None:
    assert play(tmp_path, lambda second: at(second, celsius=30.0 + second), 40, held={"GPU-0"}) == []
    assert play(tmp_path, lambda second: at(second, celsius=76.0 + 0.1 * second), 60, held={"GPU-0"}) == []


def test_throttling_for_its_temperature_is_told(tmp_path: Path) -> None:
    changes = play(
        tmp_path, lambda second: at(second, 60.0, 50.0, *(["hw_thermal_slowdown"] if 3 <= second < 12 else [])), 20
    )
    assert changes == [(8, "on", "thermal_throttling"), (12, "off", "thermal_throttling")]
    assert play(tmp_path, lambda second: at(second, 60.0, 50.0, "sw_power_cap"), 20) == []


def test_a_device_that_says_nothing_raises_no_alert(tmp_path: Path) -> None:
    assert play(tmp_path, lambda second: Reading("GPU-0", 1000.0 + second), 40) == []


def test_failures_and_fallbacks_of_the_last_ones(caplog: pytest.LogCaptureFixture) -> None:
    alerts = Alerts(RULES)
    caplog.set_level(logging.WARNING)
    alerts.ended([True, True, False])
    alerts.update((), (), 0.0, 0.0)
    assert alerts.active == []
    assert alerts.failure_ratio == pytest.approx(2 / 3)
    alerts.ended([True])
    for second in (1.0, 2.0, 3.0):
        alerts.update((), (), second, second)
    assert [(alert.rule, alert.subject, alert.since) for alert in alerts.active] == [("failure_burst", "node", 1.0)]
    assert [record.getMessage() for record in caplog.records] == ["alert: 3 of the last 4 jobs have failed"]
    alerts.ended([False, False])
    alerts.decided([True, False, True])
    alerts.update((), (), 4.0, 4.0)
    assert [alert.text for alert in alerts.active] == ["the fallback made 2 of the last 3 decisions"]
    alerts.decided([False, False, False])
    alerts.update((), (), 5.0, 5.0)
    assert alerts.active == []
    assert alerts.onsets == 2
