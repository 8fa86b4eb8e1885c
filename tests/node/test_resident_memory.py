"""Giving memory back after the start of a daemon."""

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import re, sys
from numba import njit

def resident_mib():
    kept, ours = 0, False
    for line in open("/proc/self/smaps"):
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            ours = "libllvmlite" in line
        elif ours and line.startswith("Rss:"):
            kept += int(line.split()[1])
    return kept / 1024

@njit
def twice(value):
    return 2 * value

assert twice(4) == 8
before = resident_mib()
from lepton_rl.node.resident_memory import give_back_loader
give_back_loader()
after = resident_mib()
assert twice(4.5) == 9.0  # compiled now: the code is read again
print(before, after, resident_mib())
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc/self/smaps: not Linux")
def test_llvm_code_leaves_memory_and_comes_back_when_it_is_wanted() -> None:
    told = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True).stdout
    before, after, again = map(float, told.split())
    assert after < before / 2
    assert again > after
