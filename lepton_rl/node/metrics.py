"""Metrics of a node for Prometheus: our own names, and as an option those of dcgm-exporter."""

import socket
from collections.abc import Iterable, Iterator

from lepton_rl.devices import DeviceTelemetry, TelemetrySnapshot
from lepton_rl.errors import missing_extra
from lepton_rl.node.alerts import RULES
from lepton_rl.node.guard import Verdict
from lepton_rl.node.jobs import ACTIVE, JobState
from lepton_rl.node.lifecycle import GpuState
from lepton_rl.node.service import Service
from lepton_rl.node.watch import Watch

try:
    from prometheus_client import CollectorRegistry, Histogram, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UntypedMetricFamily
    from prometheus_client.registry import Collector
except ImportError:
    raise missing_extra("prometheus-client", "node") from None

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MIB = 1 << 20
_DECISION_S = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0)
_RESPONSE_S = (1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_ERRORS = (JobState.FAILED, JobState.LOST)
_FALLBACKS = ("timeout", "exception", "illegal", "range", "starvation")
_FINISHED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.LOST)


class NodeMetrics:
    """Metrics of one daemon, in a registry of their own; `render` belongs to the daemon's thread.

    Args:
        service: the node.
        watch: its alerts.
        dcgm_names: also what dcgm-exporter exports, under its names and in its units; not beside that exporter.

    Raises:
        MissingExtra: prometheus-client is not installed.
    """

    def __init__(self, service: Service, watch: Watch, *, dcgm_names: bool = False) -> None:
        self._registry = CollectorRegistry()
        self._decision_s = Histogram(
            "lepton_rl_decision_seconds", "Time that one decision took.", buckets=_DECISION_S, registry=self._registry
        )
        self._response_s = Histogram(
            "lepton_rl_response_seconds", "Time from a request to its answer; waiting for a job does not count.",
            ["verb"], buckets=_RESPONSE_S, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_NodeCollector(service, watch))
        if dcgm_names:
            self._registry.register(_DcgmCollector(service))

    def decided(self, verdict: Verdict) -> None:
        """Take in a decision."""
        self._decision_s.observe(verdict.seconds)

    def answered(self, verb: str, seconds: float) -> None:
        """Take in an answer to a known verb."""
        self._response_s.labels(verb).observe(seconds)

    def render(self) -> bytes:
        """Return all metrics as text in Prometheus' format."""
        return bytes(generate_latest(self._registry))


class _NodeCollector(Collector):
    """What the node knows anyway, read when somebody asks."""

    def __init__(self, service: Service, watch: Watch) -> None:
        self._service, self._watch = service, watch

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry would read the whole node only to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._jobs()
        yield from self._decisions()
        snapshot = self._service.cluster.telemetry.latest()
        yield from self._gpus(snapshot)
        yield _gauge("telemetry_age_seconds", "Age of the newest readings.", snapshot.age_s)
        simulated = bool(self._service.about.get("simulated_devices"))
        yield _gauge("simulated_devices", "1 where the GPUs are no hardware.", float(simulated))
        alerts = GaugeMetricFamily(
            "lepton_rl_alert", "Things that are wrong now, by rule and subject.", labels=["rule", "subject"]
        )
        active = {(alert.rule, alert.subject) for alert in self._watch.alerts.active}
        for rule in RULES:
            if not any(rule == known for known, _ in active):
                alerts.add_metric([rule, ""], 0.0)
        for rule, subject in sorted(active):
            alerts.add_metric([rule, subject], 1.0)
        yield alerts
        yield _counter("alerts", "Onsets of alerts.", self._watch.alerts.onsets)

    def _jobs(self) -> Iterator[Metric]:
        journal = self._service.cluster.journal
        counts = journal.counts()
        yield _gauge("queue_length", "Jobs that wait.", counts[JobState.WAITING])
        states = GaugeMetricFamily("lepton_rl_job_state", "Jobs in each state.", labels=["state"])
        finished = CounterMetricFamily("lepton_rl_jobs_finished", "Jobs that have ended.", labels=["state"])
        for state, count in counts.items():
            states.add_metric([state], count)
            if state in _FINISHED:
                finished.add_metric([state], count)
        yield states
        yield finished
        yield _gauge("jobs_active", "Jobs that hold GPUs.", sum(counts[state] for state in ACTIVE))
        yield _counter("jobs_started", "Runs that were begun; a preempted job begins again.", journal.runs_begun())
        yield _counter("job_errors", "Jobs that failed or are lost.", sum(counts[state] for state in _ERRORS))
        ratio = self._watch.alerts.failure_ratio
        if ratio is not None:
            yield _gauge("job_failure_ratio", "Share of the last jobs that failed or are lost.", ratio)

    def _decisions(self) -> Iterator[Metric]:
        counts = self._service.guard.counts
        yield _counter("decisions", "Decisions that were made.", counts["decisions"])
        fallbacks = CounterMetricFamily("lepton_rl_fallback", "Decisions of the fallback, by reason.", labels=["kind"])
        known = {name.removeprefix("fallback_") for name in counts if name.startswith("fallback_")}
        for kind in sorted(known.union(_FALLBACKS)):
            fallbacks.add_metric([kind], counts[f"fallback_{kind}"])
        yield fallbacks
        yield _counter("refused", "Requests for a change that were refused.", self._service.audit.refused)

    def _gpus(self, snapshot: TelemetrySnapshot) -> Iterator[Metric]:
        cluster = self._service.cluster
        states = GaugeMetricFamily("lepton_rl_gpu_state", "1 for the state of a GPU.", labels=["gpu", "uuid", "state"])
        readings = {
            name: GaugeMetricFamily(f"lepton_rl_gpu_{name}", text, labels=["gpu", "uuid"])
            for name, text in (
                ("utilisation_ratio", "Share of time in which a kernel ran."),
                ("memory_used_bytes", "Memory in use."),
                ("power_watts", "Drawn power."),
                ("power_limit_watts", "Power limit."),
                ("temperature_celsius", "Temperature."),
            )
        }
        measured = {
            name: GaugeMetricFamily(f"lepton_rl_gpu_{name}", text, labels=["gpu", "uuid"])
            for name, text in (
                ("measured_flop_per_second", "What the GPU computed when it was measured last."),
                ("measured_timestamp_seconds", "When that was."),
            )
        }
        energy = CounterMetricFamily("lepton_rl_gpu_energy_joules", "Drawn energy.", labels=["gpu", "uuid"])
        for number, uuid in enumerate(cluster.hardware.uuids):
            labels, now = [str(number), uuid], cluster.gpu_of(uuid).state
            for state in GpuState:
                states.add_metric([*labels, state], float(state is now))
            reading = snapshot.device(uuid).filtered
            values = (
                reading.utilisation, reading.memory_used_bytes, _scaled(reading.power_mw, 1e-3),
                _scaled(reading.power_limit_mw, 1e-3), reading.temperature_c,
            )  # fmt: skip
            for family, value in zip(readings.values(), values, strict=True):
                if value is not None:
                    family.add_metric(labels, value)
            if reading.energy_mj is not None:
                energy.add_metric(labels, reading.energy_mj * 1e-3)
            if (figure := cluster.gpus.measured.get(uuid)) is not None:
                measured["measured_flop_per_second"].add_metric(labels, figure.tflops * 1e12)
                measured["measured_timestamp_seconds"].add_metric(labels, figure.measured_time)
        yield states
        yield from readings.values()
        yield from measured.values()
        yield energy


class _DcgmCollector(Collector):
    """Whole GPUs under dcgm-exporter's names; what a device does not say is left out, as there."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._hostname = socket.gethostname()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, as above."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        snapshot = self._service.cluster.telemetry.latest()
        families = {
            name: kind(f"DCGM_FI_DEV_{name}", text, labels=["gpu", "UUID", "modelName", "Hostname"])
            for name, kind, text in (
                ("GPU_UTIL", GaugeMetricFamily, "GPU utilization (in %)."),
                ("FB_USED", GaugeMetricFamily, "Framebuffer memory used (in MiB)."),
                ("FB_FREE", GaugeMetricFamily, "Framebuffer memory free (in MiB)."),
                ("POWER_USAGE", GaugeMetricFamily, "Power draw (in W)."),
                # a counter of this client would get a suffix that the exporter's name has not
                ("TOTAL_ENERGY_CONSUMPTION", UntypedMetricFamily, "Energy since boot (in mJ)."),
                ("GPU_TEMP", GaugeMetricFamily, "GPU temperature (in C)."),
                ("SM_CLOCK", GaugeMetricFamily, "SM clock frequency (in MHz)."),
                ("XID_ERRORS", GaugeMetricFamily, "Value of the last XID error encountered."),
            )
        }
        last_xid = {event.uuid: event.xid for event in snapshot.events if event.xid is not None}
        for device in snapshot.devices:
            if device.identity.parent_uuid is not None:
                continue
            labels = [str(device.identity.index), device.identity.uuid, device.identity.name, self._hostname]
            for name, value in _dcgm_values(device, last_xid.get(device.identity.uuid, 0)).items():
                if value is not None:
                    families[name].add_metric(labels, value)
        yield from families.values()


def _dcgm_values(device: DeviceTelemetry, last_xid: int) -> dict[str, float | None]:
    reading = device.raw
    return {
        "GPU_UTIL": None if reading.utilisation is None else round(100 * reading.utilisation),
        "FB_USED": _scaled(reading.memory_used_bytes, 1 / MIB),
        "FB_FREE": _scaled(reading.memory_free_bytes, 1 / MIB),
        "POWER_USAGE": _scaled(reading.power_mw, 1e-3),
        "TOTAL_ENERGY_CONSUMPTION": reading.energy_mj,
        "GPU_TEMP": reading.temperature_c,
        "SM_CLOCK": reading.sm_clock_mhz,
        "XID_ERRORS": last_xid,
    }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lepton_rl_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"lepton_rl_{name}", text, value=value)
