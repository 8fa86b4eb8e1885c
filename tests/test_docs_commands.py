"""The pages in docs/ hold: their examples run, their links lead somewhere, and their tables miss nothing.

Examples are blocks of Python or console lines behind a `<!-- run -->` mark, run page by page.

In a console block the lines that begin with `$ ` are commands; others show an excerpt of the output.
"""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from lepton_rl.core.metrics import DESCRIPTIONS
from lepton_rl.envs.features import CONTEXT_FEATURES, FEATURES
from lepton_rl.experiments.benchmark_config import BenchmarkConfig, FgdConfig, ProtocolConfig, WindowsConfig
from lepton_rl.experiments.train_config import TrainConfig
from lepton_rl.workloads import FORMATS, PLAIN_COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^<!-- run -->\n```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
RUN_EACH = "import runpy, sys; [runpy.run_path(name) for name in sys.argv[1:]]"
SECONDS = 300  # the kernels may have to be compiled first


def scripts(page: Path) -> list[tuple[str, str]]:
    """Return the page's marked blocks in order, as (language, script)."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text if language == "python" else commands(text)) for language, text in found]


def commands(console: str) -> str:
    lines = [line.removeprefix("$ ") for line in console.splitlines() if line.startswith("$ ")]
    assert lines, f"no line begins with '$ ' in: {console}"
    return "\n".join(["set -e", *lines])


@pytest.mark.parametrize("page", [page for page in PAGES if scripts(page)], ids=lambda page: page.stem)
def test_marked_blocks_run(page: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error::DeprecationWarning:lepton_rl"}
    for language, group in itertools.groupby(scripts(page), key=lambda block: block[0]):
        blocks = [script for _, script in group]
        if any(word in script for word in ("sb3", "torch", "lepton-rl train") for script in blocks):
            pytest.importorskip("stable_baselines3")
        command = ["bash", "-c", "\n".join(blocks)]
        if language == "python":  # one process imports once; each block has its own names
            names = [f"block_{number}.py" for number in range(len(blocks))]
            for name, script in zip(names, blocks, strict=True):
                (tmp_path / name).write_text(script, encoding="utf-8")
            command = [sys.executable, "-c", RUN_EACH, *names]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"{page.name}:\n{done.stdout}\n{done.stderr}"


def test_every_mark_has_a_block() -> None:
    for page in PAGES:
        marks = page.read_text(encoding="utf-8").count("<!-- run -->")
        assert marks == len(scripts(page)), page.name


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in headings(target), f"{page.name}: {link}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_index() -> None:
    index = LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    assert sorted(index) == sorted(page.name for page in PAGES if page.name != "README.md")


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted keys of a model; a section that may be left out counts as one key."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def rows(page: str) -> str:
    """Return the lines of a page's tables."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def test_every_setting_has_a_row() -> None:
    assert [key for key in keys(TrainConfig) if f"`{key}`" not in rows("training.md")] == []
    benchmark = [*BenchmarkConfig.model_fields, *keys(WindowsConfig, "workloads.N.windows.")]
    assert [key for key in benchmark if f"`{key}`" not in rows("benchmarks.md")] == []
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    protocols = [*ProtocolConfig.model_fields, *keys(FgdConfig)]
    assert [key for key in protocols if f"`{key}`" not in page] == []


def test_every_metric_feature_and_column_has_a_row() -> None:
    for page, names in (
        ("simulator.md", [*DESCRIPTIONS]),
        ("environment.md", [*FEATURES, *CONTEXT_FEATURES]),
        ("traces.md", [*FORMATS, *(column.name for column in PLAIN_COLUMNS)]),
    ):
        assert [name for name in names if f"`{name}`" not in rows(page)] == [], page
