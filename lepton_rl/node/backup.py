"""A backup of a node's journal that leaves the machine only encrypted."""

import os
from pathlib import Path

from lepton_rl.errors import JournalError
from lepton_rl.node.client import NodeClient
from lepton_rl.node.encryption import decrypt_file, encrypt_file
from lepton_rl.node.restore import Restored, restore


def encrypted_backup(client: NodeClient, state_dir: Path, file: Path, passphrase: str) -> None:
    """Let the daemon copy its journal into its own folder, encrypt that copy to `file`, and remove it.

    Raises:
        NodeError: the daemon refuses, or a file cannot be written.
        MissingExtra: pyrage is not installed.
    """
    plain = state_dir / f".backup-{os.getpid()}.sqlite3"
    try:
        client.call("backup", path=str(plain))
        encrypt_file(plain, file.absolute(), passphrase)
    finally:
        plain.unlink(missing_ok=True)


def restore_encrypted(file: Path, journal: Path, state_dir: Path, now: float, passphrase: str) -> Restored:
    """Decrypt a backup into the state folder, put it in the place of the journal, and remove what was decrypted.

    Raises:
        NodeError: the passphrase is wrong, or the file is damaged; nothing was changed.
        JournalError: what was decrypted is no whole journal, or a daemon is using the journal; nothing was changed.
        MissingExtra: pyrage is not installed.
    """
    plain = state_dir / f".restore-{os.getpid()}.sqlite3"
    try:
        decrypt_file(file, plain, passphrase)
        return restore(plain, journal, state_dir, now)
    except JournalError as error:
        raise JournalError(str(error).replace(str(plain), str(file))) from error
    finally:
        plain.unlink(missing_ok=True)
