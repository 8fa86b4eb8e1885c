"""Devices as a cluster: types by the driver's names, limits by the driver's word, instances as GPUs of their own."""

from dataclasses import replace
from pathlib import Path

import pytest

from lepton_rl.core.hardware.catalogue import gpu_type
from lepton_rl.devices import DeviceIdentity, NvmlDevices
from lepton_rl.errors import NodeError
from lepton_rl.node.hardware import CPU, RAM, describe_hardware
from lepton_rl.node.jobs import JobRequest
from lepton_rl.node.view import JobRows
from tests.fake_nvml import FakeNvml

GIB = 1 << 30
A100 = DeviceIdentity(0, "GPU-a", "NVIDIA A100-SXM4-80GB", None, 80 * GIB, 100_000, 400_000, 400_000)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("Fake A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("Tesla V100-SXM2-16GB", "V100-SXM2-16GB"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM5"),
    ],
)
def test_a_card_is_known_by_the_drivers_name(name: str, known: str) -> None:
    found = describe_hardware([replace(A100, name=name, memory_total_bytes=None)])
    assert found.cluster.types[0].name == gpu_type(known).name
    assert found.notes == ()


def test_the_drivers_limits_and_memory_go_before_the_catalogues() -> None:
    found = describe_hardware([replace(A100, max_power_limit_mw=350_000, memory_total_bytes=79 * GIB)]).cluster.types[0]
    assert (found.min_power_limit_w, found.max_power_limit_w, found.memory_gib) == (100.0, 350.0, 79.0)
    assert found.fp32_tflops == gpu_type("A100-SXM4-80GB").fp32_tflops


def test_an_unknown_card_is_a_type_of_its_own_and_said_so() -> None:
    found = describe_hardware([replace(A100, name="NVIDIA Q9000", memory_total_bytes=24 * GIB)])
    kind = found.cluster.types[0]
    assert (kind.name, kind.memory_gib, kind.max_power_w) == ("NVIDIA Q9000 24 GiB", 24.0, 400.0)
    assert found.notes == (
        "NVIDIA Q9000 is not in the catalogue of GPUs: its speed counts as that of the reference",
    )  # fmt: skip


def test_a_card_that_says_nothing_of_itself_still_makes_a_node() -> None:
    found = describe_hardware([DeviceIdentity(0, "GPU-x", "NVIDIA Mystery")])
    assert found.cluster.gpus == 1
    assert JobRows(found.cluster, 60.0).row(1, JobRequest(argv=("a",), cwd="/"), 0.0, 0.0) is not None


def test_two_types_are_two_groups_numbered_one_after_the_other() -> None:
    v100 = DeviceIdentity(0, "GPU-v", "Tesla V100-SXM2-16GB", None, 16 * GIB, 100_000, 300_000, 300_000)
    cards = [replace(v100, index=1), A100, replace(A100, index=2, uuid="GPU-b"), replace(v100, index=3, uuid="GPU-w")]
    found = describe_hardware(cards)
    assert [(group.gpus_per_node, group.gpu.name) for group in found.cluster.groups] == [
        (2, "A100-SXM4-80GB"),
        (2, "V100-SXM2-16GB"),
    ]
    assert found.uuids == ("GPU-a", "GPU-b", "GPU-v", "GPU-w")
    assert found.number_of("GPU-v") == 2
    assert [dict(group.offers).keys() for group in found.cluster.groups] == [{CPU, RAM}] * 2
    gang = JobRequest(argv=("a",), cwd="/", gpu_milli=4000)
    assert JobRows(found.cluster, 60.0).row(1, gang, 0.0, 0.0) is not None


def test_mig_instances_take_the_place_of_their_gpu(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    instances = {four_gpus.add_instance(1), four_gpus.add_instance(1)}
    with NvmlDevices(fake_library) as devices:
        found = describe_hardware(devices.identities)
    assert found.cluster.gpus == 5
    assert four_gpus.uuid(1) not in found.uuids
    assert instances <= set(found.uuids)
    sizes = {group.gpu.memory_gib for group in found.cluster.groups}
    assert sizes == {80.0, 9.5}
    assert found.notes == ()


def test_without_a_gpu_there_is_no_node() -> None:
    with pytest.raises(NodeError, match="no GPU that takes work"):
        describe_hardware([])
    with pytest.raises(NodeError, match="no GPU that takes work"):
        describe_hardware([replace(A100, divided=True)])
