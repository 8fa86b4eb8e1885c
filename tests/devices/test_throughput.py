"""The ready command that measures a GPU: one number, or one sentence."""

import os
import subprocess
import sys

import pytest

from lepton_rl.devices.throughput import DTYPES, throughput_tflops

_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from lepton_rl.devices.throughput import main
sys.exit(main([]))
"""


def test_without_torch_it_names_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_TORCH], capture_output=True, text=True, check=False)
    sentence = "error: torch is not installed; install it with: pip install 'lepton-rl[train]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


def test_without_cuda_it_says_so() -> None:
    pytest.importorskip("torch")
    words = [sys.executable, "-m", "lepton_rl.devices.throughput", "--seconds", "0.1"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=hidden)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: torch sees no CUDA device: it needs a build with CUDA")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_that_is_there_computes(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    assert throughput_tflops(0.2, 2048, dtype) > 0.1
