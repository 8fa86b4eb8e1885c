"""Who made which token, and who took it back, is in the audit log, with or without a daemon."""

import json
from pathlib import Path
from typing import Any

import pytest

from lepton_rl.cli import main
from lepton_rl.errors import JournalError, NodeError
from lepton_rl.node.http.rules import TOKENS
from lepton_rl.node.http.token_changes import change_tokens
from lepton_rl.node.http.tokens import TokenBook
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL
from tests.fake_nvml import FakeNvml
from tests.node.daemons import DaemonNode

ALICE: dict[str, Any] = {"token": "alice", "role": "submit"}


def entries(state: Path) -> list[tuple[str, str, str]]:
    """Return verb, target and outcome of what the audit log has."""
    with Journal(state / JOURNAL, read_only=True) as journal:
        return [(entry.verb, entry.target, entry.outcome) for entry in journal.ledger.audit_log()]


def test_without_a_daemon(tmp_path: Path) -> None:
    state = tmp_path / "node"
    secret = change_tokens(state, "token_add", ALICE)["secret"]
    assert TokenBook(state / TOKENS).find(secret, 0.0) is not None
    with pytest.raises(NodeError, match="there is a token 'alice' already"):
        change_tokens(state, "token_add", ALICE)
    assert change_tokens(state, "token_revoke", {"token": "alice"}) == {}
    assert TokenBook(state / TOKENS).tokens() == []
    verbs, targets, outcomes = zip(*entries(state), strict=True)
    assert verbs == ("token_add", "token_add", "token_revoke")
    assert set(targets) == {"token alice"}
    assert outcomes[0] == outcomes[2] == "done"
    assert outcomes[1].startswith("refused: there is a token 'alice' already")
    assert secret.split("_", 2)[2].encode() not in b"".join(file.read_bytes() for file in state.iterdir())


def test_no_token_where_the_audit_log_cannot_be_written(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL), pytest.raises(JournalError, match="is using it"):
        change_tokens(tmp_path, "token_add", ALICE)
    assert TokenBook(tmp_path / TOKENS).tokens() == []


def test_no_journal_is_begun_beside_the_folders_of_jobs(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "3").mkdir(parents=True)
    with pytest.raises(JournalError, match=r"is missing, but there are jobs up to 3"):
        change_tokens(tmp_path, "token_add", ALICE)
    assert not (tmp_path / JOURNAL).exists()


def test_by_the_daemon_that_runs(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    with DaemonNode(tmp_path, four_gpus, fake_library) as node:
        node.start()
        token = node.node("token", "add", "alice", "--role", "read", "--expires", "90d").strip()
        assert "there is a token 'alice' already" in node.refused("node", "token", "add", "alice", "--role", "read")
        assert "there is no role 'raed'; did you mean 'read'?" in node.refused(
            "node", "token", "add", "bob", "--role", "raed"
        )
        assert TokenBook(node.state / TOKENS).find(token, 0.0) is not None
        node.node("token", "revoke", "alice")
        assert TokenBook(node.state / TOKENS).tokens() == []
        said = node.node("audit", "--json")
        found = [(entry["verb"], entry["target"], entry["outcome"][:7]) for entry in json.loads(said)]
        assert found == [
            ("token_add", "token alice", "done"),
            ("token_add", "token alice", "refused"),
            ("token_add", "token bob", "refused"),
            ("token_revoke", "token alice", "done"),
        ]
        assert token.split("_", 2)[2] not in said


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["node", "token", "add", "alice", "--role", "read", "--state", str(tmp_path / "file" / "x")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
