"""docs/node-http.md says what there is: roles, metrics and settings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lepton_rl.experiments.node_config import AlertsConfig, HttpConfig, NodeConfig
from lepton_rl.node.http.roles import ROLES
from tests.node.http.conftest import RunningNode

pytest.importorskip("fastapi")
PAGE = (Path(__file__).parents[3] / "docs" / "node-http.md").read_text(encoding="utf-8")


def test_the_table_of_roles_is_the_one_in_force() -> None:
    before: frozenset[str] = frozenset()
    for role, verbs in ROLES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| {role} |"))
        for verb in verbs - before:
            assert re.search(rf"\b{verb}\b", row), (role, verb)
        for verb in ROLES["operate"] - verbs:
            assert not re.search(rf"\b{verb}\b", row.replace("for all jobs", "")), (role, verb)
        before = verbs


def test_every_metric_is_on_the_page(node: RunningNode) -> None:
    text = node.ask("GET", "/metrics", "read").body
    names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    names = {name for name in names if not name.endswith("_created")}
    assert len(names) > 25
    for name in names:
        last = re.sub(r"^(lepton_rl_gpu|DCGM_FI_DEV)", "", name)
        assert name in PAGE or f"`{last}`" in PAGE, name


def test_the_examples_of_settings_are_whole_and_the_defaults() -> None:
    found: dict[str, Any] = {}
    for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        found |= yaml.safe_load(block)
    config = NodeConfig(http=found["http"], alerts=found["alerts"])
    assert config.alerts == AlertsConfig()
    assert set(found["alerts"]) == set(AlertsConfig.model_fields)
    assert set(found["http"]) == set(HttpConfig.model_fields)
    assert config.http.requests_per_second == HttpConfig().requests_per_second
