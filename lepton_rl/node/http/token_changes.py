"""Tokens made and revoked, each in the audit log: by the daemon where one runs, else under the journal's lock."""

import os
import time
from pathlib import Path
from typing import Any

from lepton_rl.errors import LeptonError, NodeError
from lepton_rl.node import messages as m
from lepton_rl.node.accounts import user_name
from lepton_rl.node.client import NodeClient
from lepton_rl.node.http.rules import TOKENS
from lepton_rl.node.http.tokens import TokenBook
from lepton_rl.node.job_folders import check_journal_is_there
from lepton_rl.node.journal import Journal
from lepton_rl.node.ledger import AuditEntry
from lepton_rl.node.paths import JOURNAL, SOCKET


def change_tokens(state_dir: Path, verb: str, arguments: dict[str, Any], socket: Path | None = None) -> dict[str, Any]:
    """Carry out `token_add` or `token_revoke`; a new token is returned only once the audit log has it.

    The daemon is asked on `socket`, of the state folder if None.

    Raises:
        NodeError: it is refused.
        JournalError: no daemon answers, and the audit log cannot be written: a daemon is starting, or the disk is full.
    """
    try:
        client = NodeClient(socket or state_dir / SOCKET)
    except NodeError:
        return _without_daemon(state_dir, verb, arguments)
    with client:
        found: dict[str, Any] = client.call(verb, **arguments)
        return found


def apply_change(book: TokenBook, message: m.TokenAdd | m.TokenRevoke, now: float) -> dict[str, Any]:
    """Change the book; return the new token, if it is one, under "secret".

    Raises:
        NodeError: it is refused.
    """
    if isinstance(message, m.TokenRevoke):
        book.revoke(message.token)
        return {}
    secret = book.add(message.token, message.role, now, user=message.user, expires=message.expires)
    return {"secret": secret}


def _without_daemon(state_dir: Path, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
    message, now, uid = m.parse(verb, arguments), time.time(), os.geteuid()
    assert isinstance(message, m.TokenAdd | m.TokenRevoke)
    user = user_name(uid)
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NodeError(f"{state_dir}: the tokens cannot be written: {error.strerror}") from None
    check_journal_is_there(state_dir)
    with Journal(state_dir / JOURNAL, now=now) as journal:
        outcome = "done"
        try:
            return apply_change(TokenBook(state_dir / TOKENS), message, now)
        except LeptonError as error:
            outcome = f"refused: {error}"
            raise
        finally:
            journal.ledger.audit(
                AuditEntry(
                    time=now, uid=uid, user=user, verb=verb, target=f"token {message.token}", outcome=outcome,
                    detail=arguments,
                )
            )  # fmt: skip
