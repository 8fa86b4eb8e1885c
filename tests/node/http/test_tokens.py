"""Tokens: shown once, kept as hashes, and gone at once when they are revoked."""

import json
import os
import pwd
from pathlib import Path

import pytest

from lepton_rl.errors import NodeError
from lepton_rl.node.http.tokens import TokenBook


@pytest.fixture
def book(tmp_path: Path) -> TokenBook:
    """An empty book."""
    return TokenBook(tmp_path / "state" / "tokens.json")


def test_a_token_opens_until_it_is_revoked_by_another_process(book: TokenBook, tmp_path: Path) -> None:
    text = book.add("alice", "submit", 100.0)
    other = TokenBook(tmp_path / "state" / "tokens.json")
    token = other.find(text, 200.0)
    assert token is not None
    assert (token.name, token.role) == ("alice", "submit")
    book.revoke("alice")
    assert other.find(text, 200.0) is None
    assert other.tokens() == []


def test_the_file_does_not_hold_the_secret_and_is_its_owners_alone(book: TokenBook, tmp_path: Path) -> None:
    text = book.add("alice", "read", 0.0)
    path = tmp_path / "state" / "tokens.json"
    assert text.split("_", 2)[2] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    again = book.add("bob", "read", 0.0)
    digests = {entry["digest"] for entry in json.loads(path.read_text())["tokens"]}
    assert len(digests) == 2
    assert len(text) == len(again) > 60


def test_an_almost_right_token_opens_nothing(book: TokenBook) -> None:
    text = book.add("alice", "read", 0.0)
    swapped = text[:-1] + ("A" if text[-1] != "A" else "B")
    for wrong in ("", "lepton", swapped, text + "A", text[:-1], text.replace("lepton", "Lepton"), "lepton_" + "0" * 60):
        assert book.find(wrong, 1.0) is None
    assert book.find(text, 1.0) is not None


def test_a_token_expires(book: TokenBook) -> None:
    text = book.add("alice", "read", 0.0, expires=50.0)
    assert book.find(text, 49.9) is not None
    assert book.find(text, 50.0) is None


def test_whom_jobs_count_for(book: TokenBook) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    plain, named = book.add("ci", "submit", 0.0), book.add("mine", "operate", 0.0, user=me)
    found = [book.find(text, 1.0) for text in (plain, named)]
    callers = [token.caller() for token in found if token is not None]
    assert [(caller.uid, caller.user, caller.operator) for caller in callers] == [
        (os.geteuid(), "ci@http", False),
        (os.geteuid(), me, True),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("alice", "read"), "there is a token 'alice' already"),
        (("a b", "read"), "cannot name a token"),
        (("", "read"), "cannot name a token"),
        (("bob", "reed"), "did you mean 'read'"),
    ],
)
def test_what_is_refused(book: TokenBook, arguments: tuple[str, str], sentence: str) -> None:
    book.add("alice", "read", 0.0)
    with pytest.raises(NodeError, match=sentence):
        book.add(*arguments, 0.0)
    with pytest.raises(NodeError, match="no user 'nobody-of-this-name'"):
        book.add("carol", "read", 0.0, user="nobody-of-this-name")
    with pytest.raises(NodeError, match="did you mean 'alice'"):
        book.revoke("alicee")
    assert [token.name for token in book.tokens()] == ["alice"]


def test_a_damaged_file_opens_nothing_and_says_so(book: TokenBook, tmp_path: Path) -> None:
    text = book.add("alice", "read", 0.0)
    (tmp_path / "state" / "tokens.json").write_text("{")
    with pytest.raises(NodeError, match="damaged"):
        book.tokens()
    assert book.find(text, 1.0) is None
