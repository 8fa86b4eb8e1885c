"""The daemon of a node: opens everything, lets the policy decide until it is told to end, and closes everything.

Jobs do not end with it; the next daemon finds them.
"""

import asyncio
import logging
import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from lepton_rl.core.snapshot import Snapshot
from lepton_rl.devices import Devices, History, Telemetry
from lepton_rl.errors import JobError, LeptonError
from lepton_rl.node.cgroup import Cgroups, describe_enforcement
from lepton_rl.node.chores import feed_back, keep_house
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.guard import Guard, Verdict
from lepton_rl.node.hardware import describe_hardware
from lepton_rl.node.http.rules import TOKENS, HttpRules
from lepton_rl.node.http.token_changes import apply_change
from lepton_rl.node.http.tokens import TokenBook
from lepton_rl.node.job_folders import check_journal_is_there, pass_over_folders
from lepton_rl.node.journal import Journal
from lepton_rl.node.launcher_client import LauncherStarter
from lepton_rl.node.mps import mps_runs
from lepton_rl.node.paths import HISTORY, JOURNAL
from lepton_rl.node.promotion import Promotion
from lepton_rl.node.resident_memory import stay_small
from lepton_rl.node.retention import forget_daily
from lepton_rl.node.runs import Runs
from lepton_rl.node.server import SocketServer
from lepton_rl.node.service import Service
from lepton_rl.node.setup import NodeSetup, write_about
from lepton_rl.node.starter import OwnStarter, Starter
from lepton_rl.node.watch import Watch

_log = logging.getLogger(__name__)


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
        cluster = _open_cluster(setup, journal, devices, open_things)
        guard = _open_guard(setup, cluster, open_things)
        service, watch = _open_service(setup, cluster, guard, devices, open_things)
        _serve(setup, service, watch, open_things)
        service.promotion.take_up()  # late: a daemon that does not come up leaves the feedback to its predecessor,
        write_about(setup, cluster.hardware)  # and what decides here, too
        for number in (signal.SIGTERM, signal.SIGINT):
            cluster.loop.add_signal_handler(number, cluster.close)
        _log.info("node of %s under %s; fallback %s", cluster.hardware.cluster, *setup.names)
        decide_for_ever(cluster, guard)
        service.decisions.flush()
        _log.info("the daemon ends; jobs go on")


def _open_cluster(setup: NodeSetup, journal: Journal, devices: Devices, open_things: ExitStack) -> NodeCluster:
    """Find the jobs and GPUs of the node, and begin to follow them."""
    hardware = describe_hardware(devices.identities)
    for note in (*hardware.notes, *setup.check(hardware)):
        _log.warning("%s", note)
    loop = asyncio.new_event_loop()
    open_things.callback(loop.close)
    seen: list[NodeCluster] = []
    history = open_things.enter_context(History(setup.state_dir / HISTORY))
    telemetry = open_things.enter_context(Telemetry(devices, history, on_snapshot=lambda: _call(loop, seen)))
    starter = _starter(setup, journal)
    runs = open_things.enter_context(Runs(setup.state_dir, journal, starter=starter))
    power = None if setup.power is None else setup.power(devices, setup.state_dir)
    if power is not None:
        open_things.callback(power.close)
    cluster = NodeCluster(hardware, journal, runs, telemetry, setup.rules, power=power, loop=loop)
    seen.append(cluster)
    open_things.callback(cluster.shut)
    return cluster


def _open_guard(setup: NodeSetup, cluster: NodeCluster, open_things: ExitStack) -> Guard:
    """Put the policy between the guard and its fallback, and let both decide once on what does not matter."""
    guard = Guard(setup.policy, setup.fallback, setup.names, setup.guard, allowance=cluster.steps.allowance)
    open_things.callback(guard.close)
    cluster.steps.starving = guard.starving
    guard.warm_up(cluster.state.examples())
    open_things.callback(cluster.loop.create_task(stay_small()).cancel)
    return guard


def _open_service(
    setup: NodeSetup, cluster: NodeCluster, guard: Guard, devices: Devices, open_things: ExitStack
) -> tuple[Service, Watch]:
    """Make what answers callers, and what looks out for operators; both hear of changes and decisions."""
    about = {"simulated_devices": devices.simulated, "driver_version": devices.driver_version, "pid": os.getpid()}
    promotion = Promotion(cluster, guard, setup.feedback_rules, setup.weighted, setup.policies)
    service = Service(cluster, guard, {**about, **setup.about}, setup.price_usd_per_kwh, promotion)
    watch = Watch(cluster, guard, setup.alerts, setup.job_mapping_dir)
    open_things.callback(watch.close)
    watch.look()
    service.alerts, service.scoring = watch.active, setup.scoring
    tokens = TokenBook(setup.state_dir / TOKENS)
    service.change_tokens = lambda message: apply_change(tokens, message, cluster.clock.wall())
    if setup.sharing is not None:
        service.private, service.submissions.check_user = True, setup.sharing.users.check
    cluster.on_change = lambda: _changed(service, watch)
    guard.on_verdict = lambda verdict, snapshot: service.decisions.record(verdict, guard.policy_name)
    return service, watch


def _serve(setup: NodeSetup, service: Service, watch: Watch, open_things: ExitStack) -> None:
    """Listen for callers, and begin what is done now and then."""
    cluster, loop = service.cluster, service.cluster.loop
    server = _socket_server(setup, service)
    loop.run_until_complete(server.start())
    open_things.callback(lambda: loop.run_until_complete(server.close()))
    if setup.http is not None:
        _open_http(setup.http, setup.state_dir, service, watch, open_things)
    open_things.callback(loop.create_task(keep_house(cluster, service, watch, server)).cancel)
    starter = cluster.runs.starter
    forgetting = forget_daily(cluster.journal, setup.state_dir, setup.retention, cluster.clock.wall, starter)
    open_things.callback(loop.create_task(forgetting).cancel)
    if setup.feedback_s is not None:
        open_things.callback(loop.create_task(feed_back(service, setup.feedback_s)).cancel)


def _starter(setup: NodeSetup, journal: Journal) -> Starter:
    """Return what starts jobs: the launcher of a shared node, which enforces what it can; else the daemon itself."""
    if setup.sharing is not None:
        starter = LauncherStarter(setup.sharing.launcher, journal.node_id, setup.runs.mps_pipe_directory)
        try:
            starter.check()
        except JobError as error:  # it may come up later
            _log.error("jobs wait: %s", error)
        return starter
    cgroups = Cgroups.find() if os.geteuid() == 0 else None
    for sentence in describe_enforcement(cgroups, mps=mps_runs(setup.runs.mps_pipe_directory)):
        _log.info("%s", sentence)
    return OwnStarter(journal.node_id, cgroups, setup.runs)


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


def _changed(service: Service, watch: Watch) -> None:
    service.tell_waiters()
    watch.changed()


def _open_http(rules: HttpRules, state_dir: Path, service: Service, watch: Watch, open_things: ExitStack) -> None:
    """Listen for HTTP; what that needs is loaded only here."""
    from lepton_rl.node.http.server import HttpServer
    from lepton_rl.node.metrics import NodeMetrics

    loop = service.cluster.loop
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
