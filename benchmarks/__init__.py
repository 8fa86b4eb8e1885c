"""Speed of lepton_rl, measured: `python -m benchmarks --help`. See docs/performance.md."""

import os

# One thread on every side; numerical libraries read this when they load.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
