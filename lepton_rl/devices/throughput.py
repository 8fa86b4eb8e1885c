"""What one GPU computes: matrix products in torch for some seconds, as a program that prints one number, TFLOP/s.

Run as `python -m lepton_rl.devices.throughput`. Which GPU it is, CUDA_VISIBLE_DEVICES says.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from lepton_rl.devices.errors import DeviceError
from lepton_rl.errors import LeptonError, missing_extra

WARM_UP, AT_ONCE = 5, 10
"""Products before the clock starts, and between two looks at it."""
DTYPES = ("float16", "bfloat16", "float32")


def throughput_tflops(seconds: float = 3.0, size: int = 8192, dtype: str = "float16") -> float:
    """Return what the first CUDA device computes in products of square matrices, TFLOP/s.

    Args:
        seconds: for which it is measured; loading torch comes before that.
        size: rows of a matrix.
        dtype: one of DTYPES.

    Raises:
        MissingExtra: torch is not installed.
        DeviceError: torch sees no CUDA device, or the device fails.
    """
    try:
        import torch
    except ImportError:
        raise missing_extra("torch", "train") from None
    if not torch.cuda.is_available():
        raise DeviceError("torch sees no CUDA device: it needs a build with CUDA and NVIDIA's driver")
    try:
        left, right = (torch.randn(size, size, device="cuda", dtype=getattr(torch, dtype)) for _ in range(2))
        product = torch.empty_like(left)
        for _ in range(WARM_UP):
            torch.mm(left, right, out=product)
        torch.cuda.synchronize()
        products, begin = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            for _ in range(AT_ONCE):
                torch.mm(left, right, out=product)
            torch.cuda.synchronize()
            products += AT_ONCE
    except RuntimeError as error:  # out of memory, too
        raise DeviceError(f"torch could not compute on the GPU: {str(error).splitlines()[0]}") from None
    return 2.0 * size**3 * products / elapsed / 1e12


def main(words: Sequence[str]) -> int:
    """Print the figure, or one sentence on standard error; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lepton_rl.devices.throughput", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=8192, help="rows of a matrix")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0])
    given = parser.parse_args(words)
    try:
        print(f"{throughput_tflops(given.seconds, given.size, given.dtype):.1f}")
    except LeptonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
