"""The readers and the Lublin model against the published traces and their figures."""

from pathlib import Path

import numpy as np
import pytest

from lepton_rl.workloads import (
    LUBLIN_256,
    LUBLIN_256_LOAD,
    Trace,
    describe,
    lublin,
    read_trace,
    resolve_data_path,
    write_csv,
)

pytestmark = pytest.mark.data

# file, jobs read, dropped, MaxNodes, first raw submit, span in days, offered load on that many GPUs
PUBLISHED = [
    ("hpc_swf/lublin_256.swf.gz", 10_000, 0, 256, 5094.0, 89.2, (256, 1.06)),
    ("hpc_swf/lublin-aaroh.swf.gz", 10_000, 0, 256, 4272.0, 2517.5, (16, 0.58)),
    ("hpc_swf/NASA-iPSC-1993-3.1-cln.swf.gz", 18_066, 173, 128, 0.0, 92.0, (128, 0.47)),
    ("hpc_swf/hpc2n.swf.gz", 3_170, 0, 240, 0.0, 57.3, (128, 0.79)),
    ("hpc_swf/wagap-2013.swf.gz", 17_900, 0, None, 1356996147.0, 89.0, (1024, 1.23)),
    ("philly/philly.csv.gz", 65_797, 0, None, 1504521041.0, 72.9, (512, 0.88)),
    ("pai_gaia/pai-100k.csv.gz", 79_998, 0, None, 0.0, 293.0, (128, 0.91)),
]


@pytest.mark.parametrize(("file", "jobs", "dropped", "nodes", "first", "days", "load"), PUBLISHED)
def test_published_counts(
    data: Path,
    file: str,
    jobs: int,
    dropped: int,
    nodes: int | None,
    first: float,
    days: float,
    load: tuple[int, float],
) -> None:
    trace = read_trace(data / file)
    assert len(trace) == jobs
    assert sum(entry.count for entry in trace.dropped) == dropped
    assert (trace.machine.max_nodes if trace.machine else None) == nodes
    assert trace.origin == first
    assert trace.submit_time[-1] / 86400.0 == pytest.approx(days, abs=0.06)
    assert trace.offered_load(load[0]) == pytest.approx(load[1], abs=0.006)


def test_data_paths_lead_there(data: Path) -> None:
    assert resolve_data_path("data:hpc_swf/lublin_256.swf.gz", Path("/elsewhere")).is_file()


def test_requested_times_of_the_swf_logs(data: Path) -> None:
    assert read_trace(data / "hpc_swf/lublin_256.swf.gz").requested == "exact"
    hpc2n = read_trace(data / "hpc_swf/hpc2n.swf.gz")
    assert hpc2n.requested == "given"
    assert hpc2n.requested_time[0] == 37980.0
    assert hpc2n.notes == ("negative run time in 25 rows: 10 s is used",)


def test_philly_figures(data: Path) -> None:
    trace = read_trace(data / "philly/philly.csv.gz")
    figures = describe(trace, [512])
    assert figures.queues == 14
    assert figures.gpus_shares[1.0] == pytest.approx(0.939, abs=0.0005)
    assert figures.run_time["p5"] == 48.0
    assert figures.run_time["max"] / 86400.0 == pytest.approx(53.6, abs=0.05)
    assert trace[:5000].submit_time[0] == 0.0


def test_a_real_trace_survives_the_plain_csv(data: Path, tmp_path: Path) -> None:
    trace = read_trace(data / "hpc_swf/hpc2n.swf.gz").window(1000, 200)
    write_csv(trace, tmp_path / "x.csv")
    again = read_trace(tmp_path / "x.csv")
    assert again.run_time.tolist() == trace.run_time.tolist()
    assert again.submit_time.tolist() == (trace.submit_time - trace.submit_time[0]).tolist()


@pytest.fixture(scope="module")
def published(data: Path) -> Trace:
    return read_trace(data / "hpc_swf/lublin_256.swf.gz")


@pytest.fixture(scope="module")
def generated() -> list[Trace]:
    return [lublin(10_000, 256, seed, load=LUBLIN_256_LOAD, parameters=LUBLIN_256) for seed in range(10)]


def test_lublin_256_sizes(published: Trace, generated: list[Trace]) -> None:
    """Shares within 3 standard errors of 10,000 jobs (1.4 points), the mean size within 5 %."""
    powers = 2.0 ** np.arange(1, 9)
    for trace in generated:
        assert (trace.gpus == 1).mean() == pytest.approx((published.gpus == 1).mean(), abs=0.02)
        ours, theirs = np.isin(trace.gpus, powers).mean(), np.isin(published.gpus, powers).mean()
        assert ours == pytest.approx(theirs, abs=0.02)
    mean = np.mean([trace.gpus.mean() for trace in generated])
    assert mean == pytest.approx(published.gpus.mean(), rel=0.05)


def test_lublin_256_run_times(published: Trace, generated: list[Trace]) -> None:
    """Quartiles within 10 %, p95 and the mean within 5 %."""
    for quantile, tolerance in ((0.25, 0.1), (0.5, 0.1), (0.75, 0.1), (0.95, 0.05)):
        ours = np.mean([np.quantile(trace.run_time, quantile) for trace in generated])
        assert ours == pytest.approx(np.quantile(published.run_time, quantile), rel=tolerance)
    ours = np.mean([trace.run_time.mean() for trace in generated])
    assert ours == pytest.approx(published.run_time.mean(), rel=0.05)


def test_lublin_256_arrivals_and_load(published: Trace, generated: list[Trace]) -> None:
    """Median gap within 5 %, mean gap and CV within 10 % (a single trace: 20 %), load within 5 % of 1.06."""
    gaps = [np.diff(trace.submit_time) for trace in generated]
    theirs = np.diff(published.submit_time)
    assert np.mean([g.mean() for g in gaps]) == pytest.approx(theirs.mean(), rel=0.1)
    spreads = [g.std() / g.mean() for g in gaps]
    assert np.mean(spreads) == pytest.approx(theirs.std() / theirs.mean(), rel=0.1)
    assert spreads == pytest.approx([theirs.std() / theirs.mean()] * len(spreads), rel=0.2)
    assert np.mean([trace.offered_load(256) for trace in generated]) == pytest.approx(1.06, rel=0.05)
    assert published.offered_load(256) == pytest.approx(LUBLIN_256_LOAD, abs=0.005)
    # with the model's own load the gaps themselves agree: nothing was scaled in the published file
    own = np.concatenate([np.diff(lublin(10_000, 256, seed, parameters=LUBLIN_256).submit_time) for seed in range(5)])
    assert np.median(own) == pytest.approx(np.median(theirs), rel=0.05)
    assert np.quantile(own, 0.25) == pytest.approx(np.quantile(theirs, 0.25), rel=0.08)
