"""Small random workloads on clusters on which things change while jobs run."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import default_locality
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults, Interference, Reservation
from lepton_rl.workloads import Trace
from tests.simulator.detailed_cases import FAST, SLOW, DetailedCase, detailed_cases


@dataclass(frozen=True)
class DynamicCase:
    """A workload and a cluster that can run it, failures or not: what fails comes back."""

    trace: Trace
    cluster: ClusterSpec


@st.composite
def outages(draw: st.DrawFn, gpus: int) -> tuple[Fault, ...]:
    listed: list[Fault] = []
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, gpus - 1))
        count = draw(st.integers(1, gpus - first))
        down = draw(st.integers(0, 60))
        back = down + draw(st.integers(1, 90))
        listed += [Fault(float(down), first, count, True), Fault(float(back), first, count, False)]
    return tuple(listed)


@st.composite
def dynamic_cases(draw: st.DrawFn) -> DynamicCase:
    """Sharing, heat, failures and reservations, each drawn to be there or not."""
    case: DetailedCase = draw(detailed_cases())
    reserved = draw(st.sampled_from([None, None, 20, 45]))
    checkpoints = draw(st.sampled_from([0.0, 5.0]))
    dynamics = Dynamics(
        interference=Interference(draw(st.sampled_from([0.0, 0.5, 1.25]))),
        inlet_temperature_c=draw(st.sampled_from([None, 20.0, 46.0])),
        faults=Faults(
            schedule=draw(outages(case.cluster.gpus)),
            checkpoint_interval_s=checkpoints,
            checkpoint_cost_s=checkpoints / 10,
            restart_cost_s=draw(st.sampled_from([0.0, 3.0])),
        ),
        reservations=() if reserved is None else (Reservation(reserved, reserved + 40, (0,)),),
    )
    return DynamicCase(case.trace, case.cluster.with_dynamics(dynamics))


def hot_cluster() -> ClusterSpec:
    """Two types of GPU in air so warm that what stays busy throttles."""
    groups = (NodeGroup(2, 2, SLOW), NodeGroup(1, 4, FAST))
    plain = ClusterSpec.of_groups(groups, locality=default_locality())
    return replace(plain, dynamics=Dynamics(Interference(0.5), 46.0))
