"""Tokens for HTTP: made at random, shown once, and kept as keyed hashes from which nobody gets them back."""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import pwd
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lepton_rl.core.atomic import replacing
from lepton_rl.errors import NodeError, nearest
from lepton_rl.node.caller import Caller
from lepton_rl.node.http.roles import check_role

_log = logging.getLogger(__name__)
_PREFIX = "lepton"
_SHAPE = re.compile(rf"{_PREFIX}_([0-9a-f]{{16}})_([A-Za-z0-9_-]{{43}})")
_SECRET_BYTES = 32  # 256 bits at random: a slow hash would add nothing


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token.

    Attributes:
        name: whose it is, for people and the audit log.
        user: Unix user that jobs count for; empty: the daemon's owner, under the token's own name.
        key: of the hash, 16 bytes as hex.
        digest: HMAC-SHA256 of the secret, as hex.
        created: Unix seconds.
        expires: Unix seconds; None never.
    """

    id: str
    name: str
    role: str
    user: str
    key: str
    digest: str
    created: float
    expires: float | None = None

    def caller(self) -> Caller:
        """Return who calls with this token.

        Raises:
            NodeError: its Unix user is gone.
        """
        operator = self.role == "operate"
        if not self.user:
            return Caller(os.geteuid(), f"{self.name}@http", operator, looks=True)
        return Caller(uid_of(self.user), self.user, operator, looks=True)


def uid_of(user: str) -> int:
    """Return the number of a Unix user.

    Raises:
        NodeError: there is none.
    """
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise NodeError(f"there is no user {user!r} on this machine") from None


class TokenBook:
    """The tokens of a node, in one file that only its owner can read; what another process changes is seen at once.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def add(self, name: str, role: str, now: float, *, user: str = "", expires: float | None = None) -> str:
        """Make a token and return it; it cannot be had again.

        Raises:
            NodeError: the name is taken or no name, or there is no such role or user.
        """
        if not re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII):
            raise NodeError(f"{name!r} cannot name a token: use 1 to 64 letters, digits, '.', '_' and '-'")
        check_role(role)
        if user:
            uid_of(user)
        with self._changing() as tokens:
            if any(token.name == name for token in tokens.values()):
                raise NodeError(f"there is a token {name!r} already; revoke it first, or choose another name")
            identity, secret, key = secrets.token_hex(8), secrets.token_urlsafe(_SECRET_BYTES), secrets.token_bytes(16)
            tokens[identity] = Token(identity, name, role, user, key.hex(), _digest(key, secret), now, expires)
        return f"{_PREFIX}_{identity}_{secret}"

    def revoke(self, name: str) -> None:
        """Forget a token: it opens nothing from now on.

        Raises:
            NodeError: there is none of this name.
        """
        with self._changing() as tokens:
            found = next((token for token in tokens.values() if token.name == name), None)
            if found is None:
                known = [token.name for token in tokens.values()]
                raise NodeError(f"there is no token {name!r}{nearest(name, known)}")
            del tokens[found.id]

    def tokens(self) -> list[Token]:
        """Return all tokens, oldest first.

        Raises:
            NodeError: the file is damaged.
        """
        self._refresh()
        return sorted(self._tokens.values(), key=lambda token: token.created)

    def find(self, text: str, now: float) -> Token | None:
        """Return the token that a client has shown, or None where it is none of ours or has expired.

        It takes as long for a wrong secret as for a right one.
        """
        try:
            self._refresh()
        except NodeError as error:
            _log.error("%s", error)
            return None
        shape = _SHAPE.fullmatch(text)
        if shape is None:
            return None
        token = self._tokens.get(shape[1])
        key, digest = (_NOBODY, "") if token is None else (bytes.fromhex(token.key), token.digest)
        right = hmac.compare_digest(_digest(key, shape[2]), digest)
        if token is None or not right or (token.expires is not None and token.expires <= now):
            return None
        return token

    def _refresh(self) -> None:
        """Read the file where it has changed since."""
        try:
            status = self._path.stat()
        except OSError:
            self._seen, self._tokens = None, {}
            return
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        self._seen, self._tokens = seen, {}
        try:
            entries = [Token(**entry) for entry in json.loads(self._path.read_bytes())["tokens"]]
        except (OSError, ValueError, TypeError, KeyError):
            raise NodeError(f"{self._path}: this file of tokens is damaged; remove it and make them anew") from None
        self._tokens = {token.id: token for token in entries}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """Yield the tokens for a change, one process at a time, and write them."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise NodeError(f"{self._path}: the tokens cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(beside, fcntl.LOCK_EX)
            self._refresh()
            tokens = dict(self._tokens)
            yield tokens
            self._write(tokens)
        finally:
            os.close(beside)

    def _write(self, tokens: dict[str, Token]) -> None:
        text = json.dumps({"version": 1, "tokens": [asdict(token) for token in tokens.values()]}, indent=1)
        try:
            with replacing(self._path) as draft:
                with suppress(FileExistsError):
                    draft.touch(mode=0o600, exist_ok=False)
                draft.write_text(text, encoding="utf-8")
        except OSError as error:
            raise NodeError(f"{self._path}: the tokens cannot be written: {error.strerror}") from None


_NOBODY = secrets.token_bytes(16)


def _digest(key: bytes, secret: str) -> str:
    return hmac.new(key, secret.encode(), hashlib.sha256).hexdigest()
