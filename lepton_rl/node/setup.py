"""What a daemon is started with, and what it writes down of that for those who read its journal later."""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_rl.core.atomic import replacing
from lepton_rl.core.cluster import describe_cluster
from lepton_rl.core.policy import Policy
from lepton_rl.devices import Devices
from lepton_rl.errors import NodeError
from lepton_rl.node.alerts import AlertRules
from lepton_rl.node.cluster import NodeRules
from lepton_rl.node.environment import RunSettings
from lepton_rl.node.explain import Scoring, own_scores
from lepton_rl.node.feedback import FeedbackRules
from lepton_rl.node.guard import GuardRules
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.http.rules import HttpRules
from lepton_rl.node.paths import NODE, SOCKET
from lepton_rl.node.power import PowerControl
from lepton_rl.node.promotion import Weighted
from lepton_rl.node.retention import RetentionRules
from lepton_rl.node.sharing import Sharing


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

    @property
    def policies(self) -> str:
        """The policies in words, by which the next daemon knows whether they are still the same."""
        return json.dumps([self.policy_spec, self.trial_spec, self.canary_share], default=str, sort_keys=True)


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


def _trial_since(path: Path, trial: dict[str, Any]) -> float:
    """Return when the trial began, Unix seconds: now, or where a former daemon had the same one, when that began."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):  # damaged or of an earlier version: anew
        before = json.loads(path.read_text(encoding="utf-8"))
        if all(before.get(name) == value for name, value in trial.items()):
            return float(before["trial_since"])
    return time.time()
