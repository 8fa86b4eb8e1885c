"""A node in a terminal: GPUs, jobs, queue and decisions at one moment, as a frame that fits the screen."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lepton_rl.core.actions import Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.node.actions import from_text
from lepton_rl.node.client import NodeClient
from lepton_rl.node.durations import lasting
from lepton_rl.node.printable import printable

_STYLES = {"available": "green", "allocated": "cyan", "reserved": "cyan"}
_OUT = "yellow"
_WIDE = 100
_ACTIVE = ("starting", "running", "stopping")


def frame(
    status: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    decisions: Sequence[Mapping[str, Any]],
    width: int,
    rows: int = 10,
) -> RenderableType:
    """Return one picture of a node.

    Args:
        status: answer to the verb `status`.
        jobs: answer to `queue`.
        decisions: answer to `decisions`, oldest first.
        width: columns of the terminal; a narrow one leaves out what matters least.
        rows: most jobs, and half as many decisions, in each list.
    """
    now = float(status["time"])
    running = [job for job in jobs if job["state"] in _ACTIVE]
    waiting = [job for job in jobs if job["state"] == "waiting"]
    parts: list[RenderableType] = [_headline(status)]
    if status["simulated_devices"]:
        parts.append(Text("simulated devices: no number here was measured on hardware", style="bold yellow"))
    if status["trial"] is not None:
        parts.append(Text(f"on trial: {status['trial']['text']}", style="cyan"))
    parts += [Text(_plain(f"alert: {alert['text']}").plain, style="bold red") for alert in status["alerts"]]
    parts.append(_gpus(status["gpus"], wide=width >= _WIDE))
    parts.append(_jobs(f"running ({len(running)})", running[:rows], now, wide=width >= _WIDE))
    parts.append(_jobs(f"waiting ({len(waiting)})", waiting[:rows], now, wide=width >= _WIDE))
    if len(waiting) > rows:
        parts.append(Text(f"... and {len(waiting) - rows:,} more", style="dim"))
    parts.append(_decisions(status, decisions[-max(1, rows // 2) :]))
    return Group(*parts)


def watch(client: NodeClient, console: Console, period_s: float = 1.0, *, once: bool = False) -> None:
    """Show a node until Ctrl-C; once where that is asked for, or where nobody looks: into a pipe or a file.

    Raises:
        NodeError: the node does not answer.
    """
    if once or not console.is_terminal:
        console.print(_look(client, console))
        return
    with (
        suppress(KeyboardInterrupt),  # the way to end it
        Live(_look(client, console), console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            time.sleep(period_s)
            live.update(_look(client, console), refresh=True)


def _look(client: NodeClient, console: Console) -> RenderableType:
    verbs: list[tuple[str, dict[str, Any]]] = [("status", {}), ("queue", {}), ("decisions", {"last": 10})]
    status, jobs, decisions = client.call_each(verbs)
    taken = len(status["gpus"]) + len(status["alerts"]) + 10
    return frame(status, jobs, decisions, console.width, rows=max(3, (console.height - taken) * 2 // 5))


def _headline(status: Mapping[str, Any]) -> Text:
    counts = ", ".join(f"{count} {state}" for state, count in status["jobs"].items() if count) or "no jobs"
    clock = time.strftime("%H:%M:%S", time.localtime(status["time"]))
    return Text.assemble(("lepton-rl node", "bold"), f"  under {status['policy']}  {counts}  {clock}")


def _table(title: str) -> Table:
    return Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        expand=True,
        header_style="dim",
    )


def _gpus(gpus: Sequence[Mapping[str, Any]], *, wide: bool) -> Table:
    table = _table("GPUs")
    table.add_column("no.", justify="right", no_wrap=True)
    if wide:
        table.add_column("type", no_wrap=True, max_width=24)
    table.add_column("state", no_wrap=True)
    for name in ("util.", "memory GiB", "power W", "°C"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("jobs, reason", ratio=1, no_wrap=True, overflow="ellipsis")
    for gpu in gpus:
        used = None if gpu["utilisation"] is None else f"{gpu['utilisation']:.0%}"
        memory = f"{_per(gpu['memory_used_bytes'], 2**30, '.1f')}/{_per(gpu['memory_total_bytes'], 2**30, '.0f')}"
        power = f"{_per(gpu['power_mw'], 1e3, '.0f')}/{_per(gpu['power_limit_mw'], 1e3, '.0f')}"
        beside = "; ".join(part for part in (", ".join(map(str, gpu["jobs"])), gpu["reason"]) if part)
        state = Text(gpu["state"], style=_STYLES.get(gpu["state"], _OUT))
        table.add_row(
            str(gpu["gpu"]), *([Text(gpu["type"])] if wide else []), state, used or "-", memory, power,
            _per(gpu["temperature_c"], 1, ".0f"), _plain(beside),
        )  # fmt: skip
    return table


def _jobs(title: str, jobs: Sequence[Mapping[str, Any]], now: float, *, wide: bool) -> Table:
    table = _table(title)
    table.add_column("job", justify="right", min_width=6, no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("GPUs", justify="right", no_wrap=True)
    for name in ("waited", "ran", "asked"):
        table.add_column(name, justify="right", min_width=7, no_wrap=True)
    if wide:
        table.add_column("user", no_wrap=True, max_width=18, overflow="ellipsis")
    table.add_column("name", ratio=1, no_wrap=True, overflow="ellipsis")
    for job in jobs:
        begun = job["start_time"]
        table.add_row(
            str(job["job"]), job["state"], f"{job['gpus']:g}", lasting((begun or now) - job["submit_time"]),
            lasting(None if begun is None else now - begun), lasting(job["requested_s"]),
            *([_plain(job["user"])] if wide else []), _plain(job["name"]),
        )  # fmt: skip
    return table


def _decisions(status: Mapping[str, Any], decisions: Sequence[Mapping[str, Any]]) -> Table:
    fallbacks = sum(status["fallbacks"].values())
    table = _table(f"decisions ({status['decisions']}, {fallbacks} by the fallback)")
    table.add_column("time", no_wrap=True)
    table.add_column("by", no_wrap=True, max_width=16, overflow="ellipsis")
    table.add_column("what", ratio=1, no_wrap=True, overflow="ellipsis")
    for decision in reversed(decisions):
        what = _first([_said(action) for action in decision["detail"]["actions"]], decision["detail"].get("count"))
        text = Text(what or "nothing")
        if decision["fallback_reason"]:
            text.append(f"  fallback: {decision['fallback_reason']}", style="yellow")
        table.add_row(time.strftime("%H:%M:%S", time.localtime(decision["time"])), decision["detail"]["by"], text)
    return table


def _said(text: str) -> str:
    """An action in few words, from the text that the journal keeps."""
    match from_text(text):
        case Start(job, tuple(gpus)):
            return f"start {job} on GPU {', '.join(map(str, gpus))}"
        case Migrate(job, tuple(gpus)):
            return f"move {job} to GPU {', '.join(map(str, gpus))}"
        case Preempt(job):
            return f"preempt {job}"
        case SetPowerLimit(gpu, float(watts)):
            return f"limit GPU {gpu} to {watts:g} W"
    return text


def _first(texts: Sequence[str], count: int | None, most: int = 5) -> str:
    more = (count or len(texts)) - min(most, len(texts))
    return "; ".join([*texts[:most], *([f"and {more} more"] if more else [])])


def _plain(text: str) -> Text:
    """What a user has written, without what would steer the terminal."""
    return Text(printable(text))


def _per(value: float | None, unit: float, form: str) -> str:
    return "-" if value is None else f"{value / unit:{form}}"
