"""Control groups: on the real kernel where there is one to write to, and the words where there is none."""

import subprocess
from pathlib import Path

import pytest

from lepton_rl.node.cgroup import Cgroups, Limits, describe_enforcement
from lepton_rl.node.device_filter import allow_only
from tests.node.conftest import until


def inside(group: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a group."""
    entering = f"echo $$ > {group}/cgroup.procs; {script}"
    return subprocess.run(["sh", "-c", entering], capture_output=True, text=True, check=False)


def test_a_group_is_killed_with_all_that_hides_in_it(cgroups: Cgroups) -> None:
    group = cgroups.make("1.1", Limits())
    inside(group, "setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' < /dev/null > /dev/null 2>&1 &")
    until(lambda: len(cgroups.processes("1.1")) >= 1, "the process")
    assert cgroups.remove("1.1")
    assert not group.exists()
    assert cgroups.processes("1.1") == []
    assert cgroups.remove("1.1")


def test_a_group_opens_only_the_devices_it_was_given(cgroups: Cgroups) -> None:
    if not cgroups.filters_devices:
        pytest.skip("the kernel does not let us filter devices")
    group = cgroups.make("1.1", Limits(gpu_minors=(0,)))  # the memory devices stand for GPUs: null is 3, zero is 5
    allow_only(group, (3,), major=1, below=7)
    found = inside(group, "head -c1 /dev/zero | wc -c; cat /dev/null && echo null; head -c1 /dev/full | wc -c")
    assert found.stdout.split() == ["0", "null", "1"]
    assert "Operation not permitted" in found.stderr
    assert subprocess.run(["head", "-c1", "/dev/zero"], capture_output=True, check=True).stdout == b"\0"


@pytest.mark.parametrize("count", [0, 1, 16])
def test_any_number_of_gpus_makes_a_program_that_the_kernel_accepts(count: int, cgroups: Cgroups) -> None:
    if not cgroups.filters_devices:
        pytest.skip("the kernel does not let us filter devices")
    group = cgroups.make("1.1", Limits(gpu_minors=tuple(range(count))))
    assert inside(group, "cat /dev/null && echo open").stdout == "open\n"


def test_memory_beyond_the_limit_ends_the_job(cgroups: Cgroups) -> None:
    if "memory" not in cgroups.controllers:
        pytest.skip("the memory controller is not in the cgroup v2 hierarchy")
    group = cgroups.make("1.1", Limits(ram_mib=64))
    assert inside(group, "head -c 200M /dev/zero | tail -c 200M | wc -c").stdout != f"{200 << 20}\n"


def test_cpu_time_is_limited(cgroups: Cgroups) -> None:
    if "cpu" not in cgroups.controllers:
        pytest.skip("the cpu controller is not in the cgroup v2 hierarchy")
    group = cgroups.make("1.1", Limits(cpus=0.5))
    assert (group / "cpu.max").read_text() == "50000 100000\n"


def test_what_is_not_enforced_is_said() -> None:
    said = describe_enforcement(None)
    assert all("not enforced" in sentence for sentence in said if sentence.startswith(("GPUs", "RAM", "CPUs")))
    assert said[1].endswith("(MPS does not run).")
    assert all(sentence.endswith(".") for sentence in said)


def test_what_is_enforced_is_said(cgroups: Cgroups) -> None:
    said = describe_enforcement(cgroups, switch_user=True, mps=True)
    assert ("closed to it by the kernel" in said[0]) is cgroups.filters_devices
    assert ("not enforced" in said[2]) is ("memory" not in cgroups.controllers)
    assert said[-1] == "Users: each job runs as the user who submitted it."
