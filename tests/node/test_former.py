"""What decided before goes on deciding, until somebody says otherwise later."""

import json
from pathlib import Path
from typing import Any

import pytest

from lepton_rl.errors import ConfigError
from lepton_rl.experiments.deploy import deployed_before, read_node_config
from lepton_rl.node.former import policy_before
from lepton_rl.node.paths import NODE


def was(state: Path, policy: Any, configured: Any = "saf") -> None:
    """Leave what a daemon leaves."""
    (state / NODE).write_text(json.dumps({"policy": policy, "configured": configured}))


def test_what_was_deployed_goes_before_the_default_and_a_file_that_has_not_changed(tmp_path: Path) -> None:
    was(tmp_path, "sjf", configured={"name": "fcfs"})
    assert policy_before(tmp_path, None) == "sjf"
    assert policy_before(tmp_path, {"name": "fcfs"}) == "sjf"


def test_a_file_that_names_another_policy_since_is_the_later_word(tmp_path: Path) -> None:
    was(tmp_path, "sjf", configured={"name": "fcfs"})
    assert policy_before(tmp_path, "saf") is None
    assert policy_before(tmp_path, "sjf") is None
    was(tmp_path, "sjf", configured=None)
    assert policy_before(tmp_path, "saf") is None


@pytest.mark.parametrize("left", [None, "", "{", "[]", "{}", '{"policy": null}', "\x00"])
def test_a_folder_that_tells_nothing_leaves_it_to_the_configuration(left: str | None, tmp_path: Path) -> None:
    if left is not None:
        (tmp_path / NODE).write_text(left)
    assert policy_before(tmp_path, None) is None
    assert deployed_before(read_node_config(None), tmp_path) is None


def test_with_settings_of_a_file_that_is_no_longer_named(tmp_path: Path) -> None:
    file, state = tmp_path / "node.yaml", tmp_path / "state"
    state.mkdir()
    file.write_text("policy: {name: fcfs, blocking: easy}\n")
    was(state, {"name": "fcfs", "blocking": "easy"}, {"name": "fcfs", "blocking": "easy"})
    assert deployed_before(read_node_config(file), state) is None
    assert deployed_before(read_node_config(None), state) == {"name": "fcfs", "blocking": "easy"}


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("mine.py:Mine", r"^mine.py:Mine was deployed here last, and is a program .*: name it, or another one, with"),
        ("/nowhere/mine", r"^the bundle /nowhere/mine was deployed here last and is gone: put it back, or name it, or"),
        ("scaf", r"^what was deployed here last cannot decide any more \(no policy named 'scaf'; did you mean 'saf'"),
        (
            {"name": "/srv/mine.py:Mine"},
            r"^/srv/mine.py:Mine was deployed here last, and is a program .*: name it, or another one, with",
        ),
        ({"name": "saf", "no": 1}, r"^what was deployed here last cannot decide any more \(saf: no: unknown setting"),
    ],
)
def test_what_cannot_decide_any_more_is_refused_with_the_way_out(policy: Any, sentence: str, tmp_path: Path) -> None:
    was(tmp_path, policy)
    with pytest.raises(ConfigError, match=sentence) as caught:
        deployed_before(read_node_config(None), tmp_path)
    assert str(caught.value).endswith("with --policy")
    assert "\n" not in str(caught.value)
