"""A backup of a node's journal that leaves the machine only encrypted."""

import os
from pathlib import Path

from lepton_rl.node.client import NodeClient
from lepton_rl.node.encryption import encrypt_file


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
