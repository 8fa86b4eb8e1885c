"""The synthetic workload of all benchmarks."""

import numpy as np

from lepton_rl.workloads import Trace

GANG_SIZES = (1, 2, 4, 8, 16, 32)
GANG_PARTS = (0.5, 0.15, 0.15, 0.15, 0.03, 0.02)
LOG_RUN_TIME = (6.0, 1.5)
LONGEST_RUN = 86_400.0


def workload(jobs: int, gpus: int, load: float, seed: int = 0) -> Trace:
    """Return `jobs` jobs that arrive uniformly at random and together offer `load` to `gpus` GPUs.

    Gangs of 1 to 32 GPUs, 3.7 on average; log-normal run times in whole seconds, median 403 s, at most a day;
    requested times are exact.
    """
    rng = np.random.default_rng(seed)
    size = rng.choice(GANG_SIZES, jobs, p=GANG_PARTS).astype(float)
    run = np.minimum(np.exp(rng.normal(*LOG_RUN_TIME, jobs)), LONGEST_RUN).round() + 1.0
    span = float(size @ run) / (gpus * load)
    submit = np.sort(rng.uniform(0.0, span, jobs))
    return Trace.from_columns(
        {"submit_time": submit, "run_time": run, "requested_time": run, "gpus": size}, name="synthetic"
    )
