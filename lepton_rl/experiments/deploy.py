"""From a policy and a node's file to a daemon: what fits, what would be done, and the setup that does it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lepton_rl.agents.bundle import LearnedPolicy
from lepton_rl.agents.compiled import policy_name
from lepton_rl.agents.priority import HeapPriority
from lepton_rl.agents.registry import make_policy
from lepton_rl.agents.scoring import scores_of
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.placement import Placement
from lepton_rl.core.policy import Policy
from lepton_rl.devices import Devices, NvmlDevices, ReplayDevices
from lepton_rl.errors import ConfigError, LeptonError, counted
from lepton_rl.experiments.loader import load
from lepton_rl.experiments.node_config import (
    HttpConfig,
    JobsConfig,
    NodeConfig,
    PolicySpec,
    PowerConfig,
    ThroughputConfig,
)
from lepton_rl.experiments.sharing import run_settings, sharing_of, state_folder_of, user_id
from lepton_rl.node.alerts import AlertRules
from lepton_rl.node.cluster import NodeRules
from lepton_rl.node.feedback import FeedbackRules
from lepton_rl.node.former import policy_before
from lepton_rl.node.guard import GuardRules
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.http.rules import TOKENS, HttpRules, check_rules, parse_listen
from lepton_rl.node.http.tokens import TokenBook
from lepton_rl.node.power import DryPower, OwnPower, PowerControl, PowerLeases
from lepton_rl.node.power_helper import HelperPower, check_helper
from lepton_rl.node.promotion import Weighted
from lepton_rl.node.retention import RetentionRules
from lepton_rl.node.setup import NodeSetup
from lepton_rl.node.throughput import READY_COMMAND, ThroughputRules
from lepton_rl.node.trial import Canary, Shadow
from lepton_rl.simulator.scores import PREEMPTIVE_ORDERS

_POWER = {
    "off": "a policy that asks for power limits is refused",
    "dry_run": "power limits that the policy asks for are written to the log and not set",
    "live": "power limits that the policy asks for are set as leases and given back at the end",
}


def read_node_config(file: Path | None, overrides: tuple[str, ...] = ()) -> NodeConfig:
    """Return the configuration of a file, or the defaults.

    Raises:
        ConfigError: names file, line and key.
    """
    if file is None:
        return NodeConfig()
    return load(file, NodeConfig, overrides).model_copy(update={"base": file.absolute().parent})


def node_setup(
    config: NodeConfig,
    policy: PolicySpec | None = None,
    state_dir: Path | None = None,
    http: str | None = None,
    *,
    trial: str | None = None,
    canary_share: float | None = None,
) -> NodeSetup:
    """Return what a daemon is started with.

    Args:
        config: of the node.
        policy: instead of the configuration's; a path in it starts from the working directory.
        state_dir: instead of the configuration's.
        http: address and port to listen on for HTTP, instead of the configuration's.
        trial: another policy, in the shadow of the acting one.
        canary_share: the part of the jobs on which the other one decides indeed, 0 to 1.

    Raises:
        LeptonError: the policy or the fallback cannot be made, or an operator is not known.
    """
    acting = make_policy(policy) if policy is not None else make_policy(config.policy, base=config.base)
    fallback = make_policy(config.fallback, base=config.base)
    if isinstance(fallback, LearnedPolicy):
        raise ConfigError("fallback: a trained policy cannot be the fallback; name a heuristic, as fcfs")
    name = policy_name(acting)
    if canary_share is not None and trial is None:
        raise ConfigError("a canary is the policy that --shadow names; give that too")
    decide = [acting]
    if trial is not None:
        other = make_policy(trial)
        decide.append(other)
        acting = (
            Shadow(acting, other, (name, policy_name(other)))
            if canary_share is None
            else Canary(acting, other, canary_share, policy_name(other), name)
        )
    guard = config.guard
    return NodeSetup(
        state_dir=state_folder_of(config, state_dir),
        policy=acting,
        fallback=fallback,
        names=(name, policy_name(fallback)),
        open_devices=lambda: open_devices(config),
        check=lambda hardware: [sentence for each in decide for sentence in check_policy(each, hardware)],
        rules=_rules(config.jobs, config.acceptance.throughput),
        guard=GuardRules(**guard.model_dump()),
        runs=run_settings(config.jobs),
        operators=frozenset(user_id("operators", name) for name in config.operators),
        sharing=sharing_of(config),
        power=_power(config.power),
        policy_spec=_absolute(config.policy, config.base) if policy is None else _absolute(policy, None),
        configured_spec=_configured(config),
        trial_spec=None if trial is None else _absolute(trial, None),
        canary_share=canary_share,
        feedback_rules=FeedbackRules(**config.feedback.model_dump(exclude={"every_s"})),
        feedback_s=config.feedback.every_s,
        weighted=Weighted(_weights, _with_weights),
        scoring=scores_of,
        retention=RetentionRules(**config.retention.model_dump()),
        alerts=AlertRules(**config.alerts.model_dump()),
        job_mapping_dir=None if config.hpc_job_mapping_dir is None else Path(config.hpc_job_mapping_dir).expanduser(),
        http=_http(config.http, http),
        price_usd_per_kwh=config.price_usd_per_kwh,
    )  # fmt: skip


def deployed_before(config: NodeConfig, state_dir: Path | None = None) -> PolicySpec | None:
    """Return the policy that was deployed last on a node and goes on deciding; None where the configuration's does.

    Args:
        config: of the node.
        state_dir: instead of the configuration's.

    Raises:
        ConfigError: it cannot decide any more; with the way out.
    """
    last: PolicySpec | None = policy_before(state_folder_of(config, state_dir), _configured(config))
    if last is None or last == config.policy:
        return None
    out = "name it, or another one, with --policy"
    name = str(last.get("name")) if isinstance(last, dict) else str(last)
    if ".py:" in name:
        raise ConfigError(f"{name} was deployed here last, and is a program that only a command line may name: {out}")
    if Path(name).is_absolute() and not Path(name).exists():
        raise ConfigError(f"the bundle {name} was deployed here last and is gone: put it back, or {out}")
    try:
        make_policy(last)
    except LeptonError as error:
        raise ConfigError(f"what was deployed here last cannot decide any more ({error}): {out}") from None
    return last


def _configured(config: NodeConfig) -> PolicySpec | None:
    """Return the policy that a file names, as plain data; None where it leaves that to the default."""
    if "policy" not in config.model_fields_set:
        return None
    named: PolicySpec = json.loads(json.dumps(_absolute(config.policy, config.base)))
    return named


def _rules(jobs: JobsConfig, throughput: ThroughputConfig | None) -> NodeRules:
    placement = Placement[jobs.placement.upper()]
    limited = jobs.time_limit == "requested"
    measured = None
    if throughput is not None:
        measured = ThroughputRules(
            throughput.least_tflops, throughput.command or READY_COMMAND, limit_s=throughput.limit_s
        )
    return NodeRules(placement, jobs.restart_cost_s, jobs.quantum_s, jobs.default_time_s, limited, measured)


_QUANTITIES = {
    "compute_intensity": "compute_weight", "time_sensitivity": "time_weight", "gpu_memory": "memory_weight",
}  # fmt: skip


def _weights(policy: Policy) -> Mapping[str, float] | None:
    """Return the weights of a weighted priority by what they weigh."""
    if not isinstance(policy, HeapPriority):
        return None
    return {quantity: float(getattr(policy, name)) for quantity, name in _QUANTITIES.items()}


def _with_weights(policy: Policy, weights: Mapping[str, float]) -> Policy:
    assert isinstance(policy, HeapPriority)
    return policy.model_copy(update={_QUANTITIES[quantity]: weight for quantity, weight in weights.items()})


def _power(config: PowerConfig) -> Callable[[Devices, Path], PowerControl] | None:
    """Return what makes a node's power control."""
    if config.mode == "off":
        return None
    if config.mode == "dry_run":
        return lambda devices, folder: DryPower()
    helper = config.helper
    if helper is not None:
        return lambda devices, folder: HelperPower(Path(helper))
    return lambda devices, folder: OwnPower(PowerLeases(devices, folder, config.lease_s))


def _http(config: HttpConfig, listen: str | None) -> HttpRules | None:
    """Return where to listen for HTTP, if anywhere."""
    listen = config.listen if listen is None else listen
    if listen is None:
        return None
    host, port = parse_listen(listen)
    return HttpRules(
        host=host,
        port=port,
        certificate=None if config.certificate is None else Path(config.certificate),
        key=None if config.key is None else Path(config.key),
        hosts=config.hosts,
        metrics_open=config.metrics_open,
        dcgm_names=config.dcgm_names,
        requests_per_second=config.requests_per_second,
    )


def open_devices(config: NodeConfig) -> Devices:
    """Return the GPUs that the configuration names.

    Raises:
        DeviceError: there is no driver, or no such recording.
    """
    if config.devices.recording is not None:
        return ReplayDevices(Path(config.devices.recording))
    return NvmlDevices(config.devices.library_path)


def check_policy(policy: Policy, hardware: NodeHardware) -> list[str]:
    """Return what is worth knowing before this policy decides on this node, one sentence each.

    Raises:
        BundleError: it cannot run here.
    """
    if not isinstance(policy, LearnedPolicy):
        stops = (
            f"{policy_name(policy)} stops running jobs for others: a decision that would stop a job not submitted with "
            "--restartable is refused as a whole, and the fallback decides"
        )
        return [f"{policy_name(policy)} is a heuristic: it runs on any node", *([stops] if preempts(policy) else [])]
    cluster = hardware.cluster
    policy.check_cluster(cluster)
    notes = [f"codec {policy.codec.actions}, {policy.codec.window} visible jobs, network {policy.network}"]
    if cluster.gpus != policy.cluster.gpus:
        notes.append(
            f"it was trained on {_with_count(policy.cluster)}, this node has {cluster.gpus}: what it decides here "
            "is not what was measured there; train it anew on what `lepton-rl node export` writes, or let it decide "
            "beside another first: `lepton-rl node start --policy saf --shadow BUNDLE`"
        )
    if not policy.knows_ranges:
        notes.append("the bundle does not say what it saw in its training: states unlike those are not recognised")
    notes += _validation(policy.about)
    return notes


def preempts(policy: Policy) -> bool:
    """Return whether a policy is known to stop running jobs: by its order, or by its setting `preempt`."""
    return getattr(policy, "order", None) in PREEMPTIVE_ORDERS or getattr(policy, "preempt", False) is True


def _with_count(cluster: ClusterSpec) -> str:
    """Return a cluster and how many GPUs it has, said once."""
    count = counted(cluster.gpus, "GPU")
    return str(cluster) if str(cluster) == count else f"{cluster} ({count})"


def _validation(about: Mapping[str, Any]) -> list[str]:
    found = about.get("validation")
    if not isinstance(found, Mapping):
        return []
    return [f"held out in its training: {', '.join(f'{key} {value}' for key, value in list(found.items())[:4])}"]


def check_power(config: PowerConfig) -> None:
    """Refuse power limits that nobody would set.

    Raises:
        NodeError: the helper that the configuration names does not answer.
    """
    if config.mode == "live" and config.helper is not None:
        check_helper(Path(config.helper))


def check_http(rules: HttpRules | None, state_dir: Path) -> None:
    """Refuse to listen for HTTP where the daemon would.

    Raises:
        NodeError: a certificate or a token is missing where others could listen in.
    """
    if rules is not None:
        check_rules(rules, len(TokenBook(state_dir / TOKENS).tokens()))


def describe(cluster: ClusterSpec, setup: NodeSetup, config: NodeConfig) -> list[str]:
    """Return what a daemon with this setup would do, one sentence each."""
    guard = setup.guard
    return [
        f"{setup.names[0]} decides on {_with_count(cluster)}; {setup.names[1]} on any doubt",
        f"a decision has {guard.budget_s:g} s; at most {guard.actions_per_minute} preemptions and moves a minute",
        f"a job that has waited {guard.starving_factor:g} times the median, and {guard.starving_floor_s:,.0f} s, goes "
        "ahead",
        "a job that runs for longer than its --time is ended"
        if setup.rules.limit_requested
        else "--time is a wish: a job may run for longer, up to its --time-limit where it has one",
        *_acceptance(setup.rules.throughput),
        _POWER[config.power.mode],
        f"journal and logs lie in {setup.state_dir}",
        "jobs run as the user of the daemon"
        if setup.sharing is None
        else f"jobs run as their users, started by the launcher on {setup.sharing.launcher}; members of group "
        f"{config.shared.group} may call on {setup.sharing.socket}",
    ]


def _acceptance(rules: ThroughputRules | None) -> list[str]:
    if rules is None:
        return []
    how = "matrix products in torch" if rules.command == READY_COMMAND else rules.command[0]
    return [f"a GPU that is taken in is measured ({how}) and takes no work below {rules.least_tflops:g} TFLOP/s"]


def _absolute(spec: PolicySpec, base: Path | None) -> PolicySpec:
    """Return a policy as it is named from anywhere: a path becomes absolute."""
    if isinstance(spec, dict):
        return {**spec, "name": _absolute(spec["name"], base)} if isinstance(spec.get("name"), str) else spec
    if isinstance(spec, str) and (path := (base or Path()) / Path(spec).expanduser()).exists():
        return str(path.absolute())
    return spec
