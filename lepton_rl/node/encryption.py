"""Files that only who has the passphrase can read: backups and exports that leave the machine.

They are written in the age format (age-encryption.org/v1: scrypt, ChaCha20-Poly1305 in chunks), so that any program
for it opens them where this one is not at hand.
"""

import os
import stat
from pathlib import Path

from lepton_rl.core.atomic import replacing
from lepton_rl.errors import NodeError, missing_extra

VARIABLE = "LEPTON_RL_PASSPHRASE"
SHORTEST = 12
_MARK = b"age-encryption.org/v1\n"


def read_passphrase(file: Path | None = None) -> str:
    """Return the first line of a file, or of the variable LEPTON_RL_PASSPHRASE; never of a command line.

    Raises:
        NodeError: there is none, others can read the file, or it is shorter than SHORTEST characters.
    """
    if file is None:
        found = os.environ.get(VARIABLE)
        if found is None:
            raise NodeError(f"a passphrase is needed: name its file with --passphrase-file, or set {VARIABLE}")
        where = VARIABLE
    else:
        where = str(file)
        try:
            mode = file.stat().st_mode
            found = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NodeError(f"{file}: this passphrase cannot be read: {error}") from None
        if stat.S_ISREG(mode) and mode & 0o077:
            raise NodeError(f"{file}: others can read this passphrase; take that from them with: chmod 600 {file}")
    lines = found.splitlines()
    if not lines or len(lines[0]) < SHORTEST:
        raise NodeError(f"{where}: a passphrase has at least {SHORTEST} characters in its first line")
    return lines[0]


def is_encrypted(path: Path) -> bool:
    """Return whether a file is one that `encrypt_file` has written, by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False


def encrypt_file(source: Path, target: Path, passphrase: str) -> None:
    """Write an encrypted copy, whole or not at all, readable by its owner alone. It is held in memory meanwhile.

    Raises:
        NodeError: a file cannot be read or written.
        MissingExtra: pyrage is not installed.
    """
    try:
        from pyrage import passphrase as age
    except ImportError:
        raise missing_extra("pyrage", "backup") from None
    _write(target, age.encrypt(_read(source), passphrase))


def decrypt_file(source: Path, target: Path, passphrase: str) -> None:
    """Write what an encrypted file holds, whole or not at all, readable by its owner alone.

    Raises:
        NodeError: the passphrase is wrong, the file is damaged or not encrypted, or cannot be read or written.
        MissingExtra: pyrage is not installed.
    """
    try:
        from pyrage import DecryptError
        from pyrage import passphrase as age
    except ImportError:
        raise missing_extra("pyrage", "backup") from None
    if source.is_file() and not is_encrypted(source):
        raise NodeError(f"{source}: this file is not encrypted; use it as it is")
    try:
        content = age.decrypt(_read(source), passphrase)
    except DecryptError:
        raise NodeError(f"{source}: this is not its passphrase, or the file is damaged; nothing was written") from None
    _write(target, content)


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise NodeError(f"{source}: cannot be read: {error.strerror}") from None


def _write(target: Path, content: bytes) -> None:
    try:
        with replacing(target) as draft:
            draft.touch(mode=0o600, exist_ok=False)
            draft.write_bytes(content)
    except OSError as error:
        raise NodeError(f"{target}: cannot be written: {error.strerror}") from None
