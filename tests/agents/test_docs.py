"""The pages about policies say what the code does."""

import re
from pathlib import Path

import numpy as np

from lepton_rl.agents import SCORES, make_policy, policies, run_policy
from lepton_rl.core import ClusterSpec
from tests.agents.cases import plain_trace

DOCS = Path(__file__).parents[2] / "docs"


def test_a_policy_in_twelve_lines_runs(tmp_path: Path) -> None:
    page = (DOCS / "write-a-policy.md").read_text()
    block = re.search(r"Save this as `mine.py`:\n\n```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    assert len([line for line in block[1].splitlines() if line.strip()]) <= 12
    (tmp_path / "mine.py").write_text(block[1])

    generator = np.random.default_rng(0)
    trace = plain_trace(
        submit_time=generator.uniform(0, 3000, 200),
        run_time=generator.uniform(10, 500, 200),
        gpus=generator.choice([1.0, 2.0, 4.0], 200),
    )
    cluster = ClusterSpec(nodes=2, gpus_per_node=4)
    mine = run_policy(make_policy("mine.py:ShortestFit", base=tmp_path), trace, cluster)
    ours = run_policy(make_policy("sjf", blocking="skip"), trace, cluster)
    assert mine.finish.tolist() == ours.finish.tolist()


def test_every_policy_has_a_row() -> None:
    page = (DOCS / "policies.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert rows == [info.name for info in policies()]


def test_sources_agree() -> None:
    page = (DOCS / "policies.md").read_text()
    for score in SCORES.values():
        assert score.source in page
