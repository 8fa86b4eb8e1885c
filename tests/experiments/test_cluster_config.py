"""Clusters from YAML: what is refused, and what is built."""

import re
from pathlib import Path

import pytest

from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import cluster_from_description, describe_cluster
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults, Interference, Reservation
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.cluster_config import ClusterConfig
from lepton_rl.experiments.loader import load

MIXED = """\
groups:
  - {nodes: 2, gpus_per_node: 8, gpu: A100, cpu_cores: 64, ram_gib: 512, accelerators: {fpga: 2}, racks: 2}
  - {nodes: 3, gpus_per_node: 4, gpu: mine, power_limit_w: 200, rent_usd_per_hour: 0.5}
gpu_types:
  mine: {memory_gib: 24, max_power_w: 300, fp32_tflops: 20, fp16_tflops: 80, memory_bandwidth_gb_s: 900}
reference: V100
locality: {nodes: {counts: [1, 2], slowdowns: [1, 1.25]}}
electricity: prices.csv
carbon: 400
first_hour: 1
"""
PRICES = "time,price_usd_per_mwh\n2023-01-01 00:00,10\n2023-01-01 01:00,20\n2023-01-01 02:00,30\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "prices.csv").write_text(PRICES)
    path = tmp_path / "mixed.yaml"
    path.write_text(MIXED)
    return path


def test_groups_become_a_cluster(file: Path) -> None:
    cluster = load(file, ClusterConfig).build()
    assert (cluster.nodes, cluster.gpus) == (5, 28)
    assert cluster.first_gpus == (0, 8, 16, 20, 24)
    assert cluster.resources == ("cpu_cores", "ram_gib", "fpga")
    first, second = cluster.groups
    assert first.gpu == gpu_type("A100")
    assert first.offers == (("cpu_cores", 64.0), ("ram_gib", 512.0), ("fpga", 2.0))
    assert (second.gpu.name, second.gpu.memory_gib, second.rent) == ("mine", 24, 0.5)
    assert second.limited_gpu.name == "mine at 200 W"
    assert second.limited_gpu.max_power_w == 200
    assert 0.5 < second.limited_gpu.speed["vision"] / second.gpu.speed["vision"] < 1
    assert cluster.reference == gpu_type("V100")
    assert cluster.locality.slowdown(2) == 1.25
    assert cluster.tariffs.electricity is not None
    assert cluster.tariffs.electricity.values.tolist() == [20, 30]
    assert cluster.tariffs.carbon is not None
    assert cluster.tariffs.carbon.integral(0, 3600) == 400 * 3600


def test_a_cluster_survives_its_description(file: Path) -> None:
    cluster = load(file, ClusterConfig).build()
    described = cluster_from_description(describe_cluster(cluster))
    assert described.groups == cluster.groups
    assert described.reference == cluster.reference
    assert described.locality == cluster.locality
    plain = ClusterSpec(3, 4, 16.0, 10.0, 100.0)
    assert cluster_from_description(describe_cluster(plain)) == plain


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("gpu: A100", "gpu: A1000", r"no GPU type is called 'A1000'; did you mean"),
        ("gpu: A100", "gpus: A100", r":2: groups.0.gpus: unknown key; did you mean 'gpu'"),
        ("racks: 2", "racks: 3", "2 nodes can stand in 1 to 2 racks, not 3"),
        ("fpga: 2", "fpga: -2", "a node has 0 to 1,000,000 of fpga, not -2"),
        ("{fpga: 2}", "{ram_gib: 2}", "'ram_gib' is no name of an accelerator"),
        ("{fpga: 2}", "{gpus: 2}", "'gpus' is no name of an accelerator"),
        ("cpu_cores: 64", "cpu_cores: -1", ":2: groups.0.cpu_cores: must be greater than or equal to 0, not -1"),
        ("power_limit_w: 200", "power_limit_w: 900", "a power limit of 900 W is outside the range of mine"),
        ("rent_usd_per_hour: 0.5", "rent_usd_per_hour: -1", "must be greater than or equal to 0, not -1"),
        ("reference: V100", "reference: V1O0", "no GPU type is called 'V1O0'"),
        ("slowdowns: [1, 1.25]", "slowdowns: [1, 0.5]", "a slowdown must be 1 or more, not 0.5"),
        ("counts: [1, 2]", "counts: [1, 1]", "the counts of a curve must rise"),
        ("memory_gib: 24, ", "", "memory_gib must be given"),
        ("memory_gib: 24", "memory: 24", "no figure called 'memory'; did you mean 'memory_gib'"),
        ("carbon: 400", "carbon: -4", "carbon: must be"),
        ("first_hour: 1", "first_hour: 3", "prices.csv has hours 0 to 2, not 3"),
        ("electricity: prices.csv", "electricity: price.csv", r"price.csv: .*(no such|No such)"),
        ("first_hour: 1", "nodes: 4", "nodes: a cluster of groups has that from its groups"),
        ("nodes: 2, gpus_per_node: 8", "nodes: 200000, gpus_per_node: 8", "at most 1,000,000 GPUs"),
    ],
)
def test_bad_files(file: Path, old: str, new: str, says: str) -> None:
    assert old in MIXED
    file.write_text(MIXED.replace(old, new))
    with pytest.raises(Exception, match=says) as caught:
        load(file, ClusterConfig).build()
    assert type(caught.value).__mro__[1].__name__ == "LeptonError" or isinstance(caught.value, ConfigError)
    assert len(str(caught.value).splitlines()) == 1


def test_what_belongs_to_groups_needs_them(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("gpus: 8\nelectricity: 50\n")
    with pytest.raises(ConfigError, match="electricity: only a cluster of groups has that"):
        load(file, ClusterConfig)


CHANGING = """\
groups:
  - {nodes: 2, gpus_per_node: 4, gpu: A100}
"""


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("interference: {coefficient: -1}", ":3: interference.coefficient: must be greater than or equal to 0, not -1"),
        (
            "interference: {coefficient: 1, pairs: {vision: {language: 1.3}}}",
            ":3: interference: interference is a coefficient, pairs or a table, not several of them",
        ),
        (
            "interference: {pairs: {vision: {language: 0.9}}}",
            ":3: interference: the slowdown of vision beside language must be 1 or more, not 0.9",
        ),
        (
            "interference: {pairs: {vision: {langage: 1.3}}}",
            ":3: interference: there is no class of job called 'langage'; did you mean 'language'",
        ),
        ("interference: mesured", ":3: interference: 'mesured' is not one of 'measured'; did you mean 'measured'?"),
        ("interference: {coeficient: 1}", ":3: interference.coeficient: unknown key; did you mean 'coefficient'?"),
        ("inlet_temperature_c: 101", ":3: inlet_temperature_c: must be less than or equal to 100, not 101"),
        (
            "inlet_temperature_c: 84",
            ":3: inlet_temperature_c: A100-SXM4-80GB runs in cooling air of -50 to 79 degrees Celsius, not 84",
        ),
        ("inlet_temperature_c: .nan", ":3: inlet_temperature_c: must be a finite number, not nan"),
        ("faults: {gpu: {mtbf_hours: 0, repair_hours: 1}}", ":3: faults.gpu.mtbf_hours: must be greater than 0, not 0"),
        ("faults: {gpu: {mtbf_hours: 10}}", ":3: faults.gpu.repair_hours: is missing"),
        (
            "faults: {gpu: {mtbf_hours: 0.001, repair_hours: 0.0001}}",
            ":3: faults: about 63,709,091 failures in 8760 hours are more than 2,000,000; lower until_hours",
        ),
        ("faults: {checkpoint_cost_s: 5}", ":3: faults: checkpoint_cost_s without a checkpoint_interval_s"),
        (
            "faults:\n  outages:\n    - {down_s: 0, up_s: 9, node: 0}\n    - {down_s: 0, up_s: 9, node: 2}",
            ":6: faults.outages.1: there is no node 2; the cluster has nodes 0 to 1",
        ),
        (
            "faults:\n  outages:\n    - {down_s: 0, up_s: 9, gpus: [0, 8]}",
            ":5: faults.outages.0: there is no GPU 8; the cluster has GPUs 0 to 7",
        ),
        ("faults: {outages: [{down_s: 0, up_s: 9, gpus: [2, 1]}]}", "gpus are [first, last], from 0 on, not [2, 1]"),
        ("faults: {outages: [{down_s: 9, up_s: 9, node: 0}]}", "an outage ends after it begins, not at 9 s after 9 s"),
        ("faults: {outages: [{down_s: 0, up_s: 9}]}", "an outage names either gpus: [first, last] or a node"),
        ("faults: {outages: [{down_s: 0, node: 0}]}", ":3: faults.outages.0.up_s: is missing"),
        ("faults: {sede: 1}", ":3: faults.sede: unknown key; did you mean 'seed'?"),
        (
            "reservations:\n  - {begin_s: 9, end_s: 9, nodes: [0]}",
            ":4: reservations.0: a reservation ends after it begins, not at 9 s after 9 s",
        ),
        ("reservations:\n  - {begin_s: 0, end_s: 9, nodes: []}", ":4: reservations.0: a reservation names no node"),
        (
            "reservations:\n  - {begin_s: 0, end_s: 9, nodes: [0]}\n  - {begin_s: 9, end_s: 19, nodes: [0, 2]}",
            ":5: reservations.1: a reservation names node 2; the cluster has nodes 0 to 1",
        ),
        (
            "reservations:\n  - {begin_s: 0, end_s: 9, nodes: [-1, 0]}",
            ":4: reservations.0.nodes.0: must be greater than or equal to 0, not -1",
        ),
        ("reservations: {begin_s: 1, end_s: 20, nodes: [0]}", ":3: reservations: must be a list, not a mapping"),
    ],
)
def test_what_a_cluster_cannot_change_is_refused_at_its_place(tmp_path: Path, keys: str, says: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"{CHANGING}{keys}\n")
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        load(file, ClusterConfig).build()
    assert str(caught.value).startswith(f"{file}:")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("interference", "measured"),
        ("inlet_temperature_c", "30"),
        ("faults", "{gpu: {mtbf_hours: 10, repair_hours: 1}}"),
        ("reservations", "[{begin_s: 1, end_s: 2, nodes: [0]}]"),
    ],
)
def test_what_changes_belongs_to_groups(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"gpus: 8\n{key}: {value}\n")
    with pytest.raises(ConfigError, match=f"{key}: only a cluster of groups has that"):
        load(file, ClusterConfig)


def test_changes_become_dynamics(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        CHANGING
        + "interference: {pairs: {vision: {language: 1.5}}}\n"
        + "inlet_temperature_c: 25\n"
        + "faults: {outages: [{down_s: 1, up_s: 2, node: 1}], checkpoint_interval_s: 60, restart_cost_s: 5}\n"
        + "reservations: [{begin_s: 3, end_s: 4, nodes: [1, 0]}]\n"
    )
    dynamics = load(file, ClusterConfig).build().dynamics
    assert dynamics == Dynamics(
        interference=Interference(pairs=(("vision", "language", 1.5),)),
        inlet_temperature_c=25.0,
        faults=Faults(
            schedule=(Fault(1.0, 4, 4, True), Fault(2.0, 4, 4, False)), checkpoint_interval_s=60.0, restart_cost_s=5.0
        ),
        reservations=(Reservation(3, 4, (0, 1)),),
    )
