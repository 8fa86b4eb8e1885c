"""An encrypted backup goes back by its passphrase alone, and anything else changes nothing."""

import shutil
from pathlib import Path

import pytest

from lepton_rl.cli import main
from lepton_rl.node.encryption import encrypt_file
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL
from tests.node.conftest import shell

pytest.importorskip("pyrage")
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a node with two jobs, and beside it an encrypted backup with the first; made once, it takes long."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "node").mkdir()
    for name, passphrase in (("right", PASSPHRASE), ("wrong", PASSPHRASE + "!")):
        (folder / name).write_text(passphrase)
        (folder / name).chmod(0o600)
    with Journal(folder / "node" / JOURNAL) as journal:
        journal.submit(shell("true"), 0.0)
        journal.backup(folder / "plain")
        encrypt_file(folder / "plain", folder / "backup.age", PASSPHRASE)
        journal.submit(shell("true"), 0.0)
    changed = bytearray((folder / "backup.age").read_bytes())
    changed[-1] ^= 1
    (folder / "changed.age").write_bytes(changed)
    (folder / "letter").write_text("dear reader, " * 100)
    encrypt_file(folder / "letter", folder / "letter.age", PASSPHRASE)
    return folder


@pytest.fixture
def state(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy" / "node"


def restore(state: Path, file: str, passphrase: str | None) -> int:
    """Run the command."""
    more = [] if passphrase is None else ["--passphrase-file", str(state.parent / passphrase)]
    return main(["node", "restore", str(state.parent / file), *more, "--state", str(state)])


def jobs(state: Path) -> int:
    """Count the jobs of the journal that is in place."""
    with Journal(state / JOURNAL, read_only=True) as journal:
        return len(journal.jobs())


def test_the_passphrase_brings_it_back(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert restore(state, "backup.age", "right") == 0
    assert capsys.readouterr().out == "1 job as it was in the copy\n"
    assert jobs(state) == 1
    assert not list(state.glob(".restor*"))


@pytest.mark.parametrize(
    ("file", "passphrase", "sentence"),
    [
        ("backup.age", "wrong", "this is not its passphrase, or the file is damaged; nothing was written"),
        ("backup.age", None, "a passphrase is needed: name its file with --passphrase-file"),
        ("changed.age", "right", "this is not its passphrase, or the file is damaged"),
        ("plain", "right", "this file is not encrypted; use it as it is"),
        ("letter.age", "right", "letter.age: is not a whole backup of a journal"),
        ("nowhere", "right", "nowhere: cannot be read"),
    ],
)
def test_anything_else_changes_nothing(
    state: Path, file: str, passphrase: str | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    assert restore(state, file, passphrase) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert sentence in lines[0]
    after = {path.name: path.read_bytes() for path in state.iterdir() if not path.name.endswith(".lock")}
    assert after == {name: content for name, content in before.items() if not name.endswith(".lock")}
    assert jobs(state) == 2
