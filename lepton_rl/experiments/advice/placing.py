"""Another placement."""

from functools import partial
from typing import get_args

import numpy as np

from lepton_rl.agents import PlacementName, make_policy, rule_names, with_rules
from lepton_rl.core.hardware.locality import Locality
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.study import Idea, LeftOut, Study, order_name

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
    for placement in get_args(PlacementName):
        if placement == present:
            continue
        make = partial(with_rules, policy, placement=placement)
        try:
            make()
        except ConfigError:
            yield LeftOut("another placement", f"{study.present} chooses GPUs itself")
            break
        text = _TEXTS[placement] + (_about_gangs(study) if placement == "consolidated" else "")
        yield Candidate("placement", f"placement {placement}", text, "mean_jct", study.setup.with_policy(make))
    if shares.any() and study.has_time:
        yield from _packing(study, shares)


def _about_gangs(study: Study) -> str:
    gpus, per_node = study.column("gpus"), study.setup.cluster.gpus_per_node
    gangs = gpus > 1
    on_one = np.count_nonzero(gangs & (gpus <= per_node))
    costs = "" if study.setup.cluster.locality != Locality() else " Spreading costs nothing in this cluster's file."
    return f" {on_one:,} of {np.count_nonzero(gangs):,} gangs fit on one node.{costs}"


def _packing(study: Study, shares: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Idea:
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
