"""Encrypted files: whole for who has the passphrase, nothing for who has not."""

from pathlib import Path

import pytest

from lepton_rl.errors import NodeError
from lepton_rl.node.encryption import VARIABLE, decrypt_file, encrypt_file, is_encrypted, read_passphrase

pytest.importorskip("pyrage")
PASSPHRASE = "correct horse battery staple"
CONTENT = b"SQLite format 3\0" + bytes(range(256)) * 1000  # several chunks of the format


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encrypted file."""
    folder = tmp_path_factory.mktemp("encrypted")
    (folder / "plain").write_bytes(CONTENT)
    encrypt_file(folder / "plain", folder / "file.age", PASSPHRASE)
    return folder / "file.age"


def test_what_is_encrypted_comes_back_whole(encrypted: Path, tmp_path: Path) -> None:
    assert CONTENT[:16] not in encrypted.read_bytes()
    assert encrypted.stat().st_mode & 0o777 == 0o600
    assert is_encrypted(encrypted)
    decrypt_file(encrypted, tmp_path / "back", PASSPHRASE)
    assert (tmp_path / "back").read_bytes() == CONTENT
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", [200, 100_000, -1], ids=["first chunk", "later chunk", "last byte"])
def test_a_changed_byte_is_noticed_and_what_was_there_stays(encrypted: Path, tmp_path: Path, place: int) -> None:
    changed = bytearray(encrypted.read_bytes())
    changed[place] ^= 1
    (tmp_path / "changed").write_bytes(changed)
    (tmp_path / "back").write_text("before")
    with pytest.raises(NodeError, match="not its passphrase, or the file is damaged"):
        decrypt_file(tmp_path / "changed", tmp_path / "back", PASSPHRASE)
    assert (tmp_path / "back").read_text() == "before"


def test_a_cut_file_and_a_wrong_passphrase_give_nothing(encrypted: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(encrypted.read_bytes()[:-70_000])
    for file, passphrase in ((tmp_path / "cut", PASSPHRASE), (encrypted, PASSPHRASE + "!")):
        with pytest.raises(NodeError, match="nothing was written"):
            decrypt_file(file, tmp_path / "back", passphrase)
    assert not (tmp_path / "back").exists()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    assert not is_encrypted(tmp_path / "plain")
    assert not is_encrypted(tmp_path / "none")
    with pytest.raises(NodeError, match="is not encrypted"):
        decrypt_file(tmp_path / "plain", tmp_path / "out", PASSPHRASE)
    with pytest.raises(NodeError, match="cannot be read"):
        encrypt_file(tmp_path / "none", tmp_path / "out", PASSPHRASE)
    with pytest.raises(NodeError, match="cannot be written"):
        encrypt_file(tmp_path / "plain", tmp_path / "no" / "out", PASSPHRASE)


def test_a_passphrase_comes_from_a_file_of_ones_own_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")
    file.chmod(0o600)
    monkeypatch.setenv(VARIABLE, "another one, of the environment")
    assert read_passphrase(file) == PASSPHRASE
    assert read_passphrase() == "another one, of the environment"
    file.chmod(0o640)
    with pytest.raises(NodeError, match="chmod 600"):
        read_passphrase(file)
    file.chmod(0o600)
    file.write_text("short\n")
    with pytest.raises(NodeError, match="at least 12 characters"):
        read_passphrase(file)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(NodeError, match="--passphrase-file"):
        read_passphrase()
