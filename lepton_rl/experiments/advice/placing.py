"""Another placement."""

from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from lepton_rl.agents import PlacementName, make_policy, rule_names, run_on, with_rules
from lepton_rl.core import Action, ClusterSpec, Start
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Bools, Floats
from lepton_rl.core.hardware.locality import Locality
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.study import MOST_JOBS_IN_PYTHON, Idea, LeftOut, Study, is_compiled, order_name
from lepton_rl.simulator import SimulatedCluster, Timing
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import job_table

_TEXTS = {
    "first": "Place jobs on the first nodes with room.",
    "best": "Pack jobs: place each on the tightest node that holds it.",
    "worst": "Spread jobs: place each on the freest nodes.",
    "consolidated": "Let gangs wait until they fit on the fewest nodes that can hold them.",
}


def another_placement(study: Study) -> Idea:
    """Try the other placements under the present order, and packing where GPUs are shared."""
    shares = study.column("gpus") < 1
    if study.setup.cluster.nodes == 1 and not shares.any():
        yield LeftOut("another placement", "in one pool all placements of whole GPUs are alike")
        return
    policy = study.policy
    present = rule_names(policy).placement
    about = _about_gangs(study)
    for placement in get_args(PlacementName):
        if placement == present:
            continue
        make = partial(with_rules, policy, placement=placement)
        try:
            make()
        except ConfigError:
            yield LeftOut("another placement", f"{study.present} chooses GPUs itself")
            break
        text = _TEXTS[placement] + (about if placement in ("best", "consolidated") else "")
        yield Candidate("placement", f"placement {placement}", text, "mean_jct", study.setup.with_policy(make))
    if shares.any() and study.has_time:
        yield from _packing(study, shares)


def _about_gangs(study: Study) -> str:
    """Return sentences of how many gangs among the first jobs now run on more nodes than they need."""
    window, cluster = study.setup.windows[0][:MOST_JOBS_IN_PYTHON], study.setup.cluster
    gangs = window.gpus > 1
    if not gangs.any() or not is_compiled(study.policy):
        return ""
    spread = gangs & (_nodes_spanned(window, study) > _fewest_nodes(window, cluster))
    costs = "" if cluster.locality != Locality() else " Spreading costs nothing in this cluster's file."
    return (
        f" Of {np.count_nonzero(gangs):,} gangs among the first {len(window):,} jobs {np.count_nonzero(spread):,} now "
        f"run on more nodes than they need.{costs}"
    )


class _SpanCounter(SimulatedCluster):
    """A cluster that keeps on how many nodes each job ran last."""

    def __init__(self, window: Trace, cluster: ClusterSpec, timing: Timing) -> None:
        super().__init__(window, cluster, timing=timing)
        self.spanned = np.zeros(len(window), np.int64)

    def apply(self, action: Action) -> None:
        super().apply(action)
        if isinstance(action, Start) and action.gpus is not None:
            nodes = np.searchsorted(self.cluster.first_gpus, action.gpus, side="right")
            self.spanned[action.job] = len(np.unique(nodes))


def _nodes_spanned(window: Trace, study: Study) -> NDArray[np.int64]:
    """Return on how many nodes each job runs under the present policy, shape (jobs,)."""
    counter = _SpanCounter(window, study.setup.cluster, study.setup.timing)
    run_on(counter, study.policy)
    return counter.spanned


def _fewest_nodes(window: Trace, cluster: ClusterSpec) -> Floats:
    """Return on how few nodes of the empty cluster each job could run, shape (jobs,)."""
    if cluster.groups:
        fewest: Floats = job_table(window, cluster)[:, L.FEWEST]
        return fewest
    return np.ceil(window.gpus / cluster.gpus_per_node)


def _packing(study: Study, shares: Bools) -> Idea:
    order, blocking = order_name(study.policy), rule_names(study.policy).blocking
    spec = {"name": "gpu_packing", "blocking": blocking if blocking == "head" else "skip"}
    if order is not None and order not in ("srtf", "las"):
        spec["order"] = order
    text = (
        f"Pack shares on GPUs in use first (gpu_packing): {np.count_nonzero(shares):,} of {len(shares):,} jobs ask for "
        "a part of a GPU."
    )
    after = study.setup.with_policy(partial(make_policy, spec))
    yield Candidate("placement", f"gpu_packing, blocking {spec['blocking']}", text, "mean_jct", after)
