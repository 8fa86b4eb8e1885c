"""The daemon of a node: opens everything, lets the policy decide until it is told to end, and closes everything.

Jobs do not end with it; the next daemon finds them.
"""

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_rl.core.atomic import replacing
from lepton_rl.core.cluster import describe_cluster
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.devices import Devices, History, Telemetry
from lepton_rl.errors import JobError, JournalError, LeptonError, NodeError
from lepton_rl.node.alerts import AlertRules
from lepton_rl.node.cgroup import Cgroups, describe_enforcement
from lepton_rl.node.cluster import NodeCluster, NodeRules, PowerControl
from lepton_rl.node.environment import RunSettings
from lepton_rl.node.explain import Scoring, own_scores
from lepton_rl.node.feedback import FeedbackRules
from lepton_rl.node.guard import Guard, GuardRules, Verdict
from lepton_rl.node.hardware import NodeHardware, describe_hardware
from lepton_rl.node.http.rules import TOKENS, HttpRules
from lepton_rl.node.http.token_changes import apply_change
from lepton_rl.node.http.tokens import TokenBook
from lepton_rl.node.job_folders import check_journal_is_there, pass_over_folders
from lepton_rl.node.journal import Journal
from lepton_rl.node.launcher_client import LauncherStarter
from lepton_rl.node.mps import mps_runs
from lepton_rl.node.paths import HISTORY, JOURNAL, NODE, SOCKET
from lepton_rl.node.promotion import Promotion, Weighted
from lepton_rl.node.retention import RetentionRules, forget_daily
from lepton_rl.node.runs import Runs
from lepton_rl.node.server import SocketServer
from lepton_rl.node.service import Caller, Service
from lepton_rl.node.sharing import Sharing
from lepton_rl.node.starter import OwnStarter, Starter
from lepton_rl.node.watch import Watch

_log = logging.getLogger(__name__)
HOUSEKEEPING_S = 1.0
FORGETTING_S = 3600.0


@dataclass(frozen=True)
class NodeSetup:
    """All that a daemon is started with.

    Attributes:
        state_dir: where journal, history, socket and the files of jobs lie; made if need be, for its owner alone.
        policy: decides; `fallback` where there is doubt; `names` of both.
        open_devices: opens the GPUs.
        check: says what is worth knowing before the policy decides on this hardware; refuses one that cannot.
        power: makes what sets power limits; None sets none.
        operators: numbers of users who may do what only operators may.
        sharing: what makes it a shared node; None for one of the daemon's own user.
        history_bytes: bound of the telemetry history.
        price_usd_per_kwh: for the cost in `usage`.
        alerts: what operators are told of.
        job_mapping_dir: where dcgm-exporter looks for the jobs on each GPU; None writes nothing.
        http: where to listen for HTTP; None does not.
        about: what `status` says beside.
        policy_spec: the policy as `make_policy` takes it, for a replay and for the next daemon.
        configured_spec: the one that a configuration file names, the same; None where none does.
        trial_spec: the one on trial, if any, the same.
        canary_share: of the jobs that it has; None for a shadow.
        feedback_rules: bounds of the result feedback.
        feedback_s: seconds between looks at results that are acted on; None for only when somebody asks.
        weighted: how the feedback changes weights of a policy.
        scoring: what a policy makes of each waiting job.
        retention: how long ended jobs are kept.
    """

    state_dir: Path
    policy: Policy
    fallback: Policy
    names: tuple[str, str]
    open_devices: Callable[[], Devices]
    check: Callable[[NodeHardware], Sequence[str]] = lambda hardware: ()
    rules: NodeRules = field(default_factory=NodeRules)
    guard: GuardRules = field(default_factory=GuardRules)
    runs: RunSettings = field(default_factory=RunSettings)
    power: Callable[[Devices, Path], PowerControl] | None = None
    operators: frozenset[int] = frozenset()
    sharing: Sharing | None = None
    price_usd_per_kwh: float | None = None
    alerts: AlertRules = field(default_factory=AlertRules)
    job_mapping_dir: Path | None = None
    http: HttpRules | None = None
    about: dict[str, Any] = field(default_factory=dict)
    policy_spec: Any = None
    configured_spec: Any = None
    trial_spec: Any = None
    canary_share: float | None = None
    feedback_rules: FeedbackRules = field(default_factory=FeedbackRules)
    feedback_s: float | None = None
    weighted: Weighted | None = None
    scoring: Scoring = own_scores
    retention: RetentionRules = field(default_factory=RetentionRules)

    @property
    def socket(self) -> Path:
        """Where the daemon listens."""
        return self.state_dir / SOCKET if self.sharing is None else self.sharing.socket


def run_daemon(setup: NodeSetup) -> None:
    """Run a node until SIGTERM, SIGINT or `node stop`.

    Raises:
        LeptonError: it cannot start: no driver, another daemon, a damaged journal.
    """
    if setup.sharing is not None:
        setup.sharing.check_process()
        os.umask(0o077)
    setup.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_journal_is_there(setup.state_dir)
    with ExitStack() as open_things:
        journal = open_things.enter_context(Journal(setup.state_dir / JOURNAL, now=time.time()))
        pass_over_folders(journal, setup.state_dir)
        devices = open_things.enter_context(setup.open_devices())
        hardware = describe_hardware(devices.identities)
        for note in (*hardware.notes, *setup.check(hardware)):
            _log.warning("%s", note)
        loop = asyncio.new_event_loop()
        open_things.callback(loop.close)
        seen: list[NodeCluster] = []
        history = open_things.enter_context(History(setup.state_dir / HISTORY))
        telemetry = open_things.enter_context(Telemetry(devices, history, on_snapshot=lambda: _call(loop, seen)))
        starter = _starter(setup, journal)
        runs = open_things.enter_context(Runs(setup.state_dir, journal, settings=setup.runs, starter=starter))
        power = None if setup.power is None else setup.power(devices, setup.state_dir)
        if power is not None:
            open_things.callback(power.close)
        cluster = NodeCluster(hardware, journal, runs, telemetry, setup.rules, power=power, loop=loop)
        seen.append(cluster)
        open_things.callback(cluster.shut)
        guard = _guard(setup, cluster)
        open_things.callback(guard.close)
        guard.warm_up(cluster.examples())
        about = {"simulated_devices": devices.simulated, "driver_version": devices.driver_version, "pid": os.getpid()}
        promotion = Promotion(cluster, guard, setup.feedback_rules, setup.weighted, _policies(setup))
        service = Service(cluster, guard, {**about, **setup.about}, setup.price_usd_per_kwh, promotion)
        watch = Watch(cluster, guard, setup.alerts, setup.job_mapping_dir)
        open_things.callback(watch.close)
        watch.look()
        service.alerts, service.scoring = watch.active, setup.scoring
        tokens = TokenBook(setup.state_dir / TOKENS)
        service.change_tokens = lambda message: apply_change(tokens, message, cluster.clock.wall())
        if setup.sharing is not None:
            service.private, service.check_user = True, setup.sharing.users.check
        cluster.on_change = lambda: _changed(service, watch)
        guard.on_verdict = lambda verdict, snapshot: service.record(verdict)
        server = _socket_server(setup, service)
        loop.run_until_complete(server.start())
        open_things.callback(lambda: loop.run_until_complete(server.close()))
        if setup.http is not None:
            _open_http(setup.http, setup.state_dir, service, watch, loop, open_things)
        housekeeping = loop.create_task(_keep_house(cluster, service, watch, server))
        open_things.callback(housekeeping.cancel)
        forgetting = loop.create_task(
            forget_daily(journal, setup.state_dir, setup.retention, cluster.clock.wall, starter)
        )
        open_things.callback(forgetting.cancel)
        if setup.feedback_s is not None:
            feedback = loop.create_task(_feed_back(service, setup.feedback_s))
            open_things.callback(feedback.cancel)
        promotion.take_up()  # late: a daemon that does not come up leaves the feedback to its predecessor,
        write_about(setup, hardware)  # and what decides here, too
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, cluster.close)
        _log.info("node of %s under %s; fallback %s", hardware.cluster, *setup.names)
        decide_for_ever(cluster, guard)
        service.flush_decisions()
        _log.info("the daemon ends; jobs go on")


def _starter(setup: NodeSetup, journal: Journal) -> Starter:
    """Return what starts jobs: the launcher of a shared node, which enforces what it can; else the daemon itself."""
    if setup.sharing is not None:
        starter = LauncherStarter(setup.sharing.launcher, journal.node_id)
        try:
            starter.check()
        except JobError as error:  # it may come up later
            _log.error("jobs wait: %s", error)
        return starter
    cgroups = Cgroups.find() if os.geteuid() == 0 else None
    for sentence in describe_enforcement(cgroups, mps=mps_runs(setup.runs.mps_pipe_directory)):
        _log.info("%s", sentence)
    return OwnStarter(journal.node_id, cgroups)


def _socket_server(setup: NodeSetup, service: Service) -> SocketServer:
    if setup.sharing is None:
        return SocketServer(setup.socket, service, setup.operators)
    sharing = setup.sharing
    return SocketServer(setup.socket, service, setup.operators, sharing.group, sharing.operator_group)


def _call(loop: asyncio.AbstractEventLoop, clusters: list[NodeCluster]) -> None:
    """Let the daemon's thread look at its GPUs soon, unless it has ended."""
    for cluster in clusters:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(cluster.look)


def decide_for_ever(cluster: NodeCluster, guard: Guard) -> None:
    """The one loop of policy and cluster, on a node: whatever one decision comes to, the next one follows."""
    while cluster.advance():
        try:
            actions = guard.decide(cluster.snapshot())
        except LeptonError as error:
            _log.error("nobody could decide: %s", error)
            continue
        except Exception:
            _log.exception("nobody could decide")
            continue
        for action in actions:
            try:
                cluster.apply(action)
            except LeptonError as error:
                _log.error("%s was not done: %s", action, error)
            except Exception:
                _log.exception("%s was not done", action)
            if not cluster.serve():
                break


def write_about(setup: NodeSetup, hardware: NodeHardware) -> None:
    """Write down what this node is, for those who read its journal later."""
    trial = {"policy": setup.policy_spec, "trial": setup.trial_spec, "canary_share": setup.canary_share}
    about = {
        "trial_since": _trial_since(setup.state_dir / NODE, json.loads(json.dumps(trial, default=str))),
        "cluster": describe_cluster(hardware.cluster),
        "gpus": list(hardware.uuids),
        **trial,
        "configured": setup.configured_spec,
        "placement": setup.rules.placement.name.lower(),
        "default_time_s": setup.rules.default_time_s,
        "socket": str(setup.socket),
    }
    with replacing(setup.state_dir / NODE) as draft:
        draft.write_text(json.dumps(about, indent=1, default=str), encoding="utf-8")


def _policies(setup: NodeSetup) -> str:
    """Return the policies of a setup, by which the next daemon knows whether they are still the same."""
    return json.dumps([setup.policy_spec, setup.trial_spec, setup.canary_share], default=str, sort_keys=True)


def _trial_since(path: Path, trial: dict[str, Any]) -> float:
    """Return when the trial began, Unix seconds: now, or where a former daemon had the same one, when that began."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):  # damaged or of an earlier version: anew
        before = json.loads(path.read_text(encoding="utf-8"))
        if all(before.get(name) == value for name, value in trial.items()):
            return float(before["trial_since"])
    return time.time()


def _guard(setup: NodeSetup, cluster: NodeCluster) -> Guard:
    def may_stop(job: int) -> bool:
        return cluster.journal.job(job).request.restartable

    guard = Guard(
        setup.policy, setup.fallback, setup.names, setup.guard, may_stop=may_stop, check_gpus=cluster.check_gpus
    )
    cluster.starving = guard.starving
    return guard


async def _feed_back(service: Service, period_s: float) -> None:
    """Look at results now and then and do what follows; the audit log has it as the daemon's own call."""
    caller = Caller(os.geteuid(), "feedback", operator=True)
    while True:
        await asyncio.sleep(period_s)
        try:
            found = service.promotion.look(apply=False)
            if found["verdict"] != "keep" or "weights" in found:
                await service.call(caller, "feedback", {"apply": True})
        except LeptonError as error:
            _log.error("feedback: %s", error)


def _changed(service: Service, watch: Watch) -> None:
    service.tell_waiters()
    watch.changed()


def _open_http(
    rules: HttpRules,
    state_dir: Path,
    service: Service,
    watch: Watch,
    loop: asyncio.AbstractEventLoop,
    open_things: ExitStack,
) -> None:
    """Listen for HTTP; what that needs is loaded only here."""
    from lepton_rl.node.http.server import HttpServer
    from lepton_rl.node.metrics import NodeMetrics

    metrics = NodeMetrics(service, watch, dcgm_names=rules.dcgm_names)
    service.on_answer = metrics.answered
    recorded = service.guard.on_verdict

    def measured(verdict: Verdict, snapshot: Snapshot) -> None:
        metrics.decided(verdict)
        recorded(verdict, snapshot)

    service.guard.on_verdict = measured
    http = HttpServer(rules, service, metrics, state_dir, loop)
    open_things.callback(lambda: loop.run_until_complete(http.close()))
    loop.add_signal_handler(signal.SIGHUP, http.renew_certificate)
    service.about["http"] = http.url
    _log.info("listening on %s", http.url)


async def _keep_house(cluster: NodeCluster, service: Service, watch: Watch, server: SocketServer) -> None:
    forgotten = cluster.clock.monotonic()
    while True:
        await asyncio.sleep(HOUSEKEEPING_S)
        await server.keep()
        try:
            service.flush_decisions()
            watch.look()
            if cluster.clock.monotonic() - forgotten > FORGETTING_S:
                service.forget_old_decisions()
                forgotten = cluster.clock.monotonic()
        except JournalError as error:
            _log.error("%s", error)


def check_can_start(state_dir: Path, sharing: Sharing | None = None) -> None:
    """Refuse a state folder that cannot be used, before anything is begun.

    Raises:
        NodeError: it is a file, or another user's, or this process may not be the daemon of a shared node.
    """
    if sharing is not None:
        sharing.check_process()
    if state_dir.exists() and not state_dir.is_dir():
        raise NodeError(f"{state_dir}: this is no folder; name another one for the node's state")
    if state_dir.exists() and state_dir.stat().st_uid not in (os.geteuid(), 0):
        raise NodeError(f"{state_dir}: it belongs to another user; a node's state must be its own")
