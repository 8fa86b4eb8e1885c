"""`lepton-rl node token`: who may call a node over HTTP."""

import time
from typing import Annotated

import typer

from lepton_rl.cli.node import Json, State, state_folder
from lepton_rl.cli.options import command_group
from lepton_rl.cli.printing import note, print_json
from lepton_rl.cli.quantities import seconds

app = command_group(
    "Make, list and revoke tokens for a node's HTTP side; it need not run.",
    "Example: lepton-rl node token add alice --role submit",
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is; jobs and the audit log name NAME@http.")],
    role: Annotated[str, typer.Option(help="read, submit or operate.")],
    user: Annotated[str, typer.Option(help="Unix user whom its jobs count for, instead.")] = "",
    expires: Annotated[str | None, typer.Option(help="It ends after so long, as 90d.")] = None,
    state: State = None,
) -> None:
    """Make a token and print it: this once, it is kept only as a hash.

    On a personal node every job runs as the daemon's owner, whoever submits it: who gets the role submit can do all
    that the owner can.

    Example: lepton-rl node token add alice --role submit
    """
    from lepton_rl.node.http.token_changes import change_tokens
    from lepton_rl.node.paths import find_socket

    ends = None if expires is None else time.time() + seconds(expires, "--expires")
    asked = {"token": name, "role": role, "user": user, "expires": ends}
    made = change_tokens(state_folder(state), "token_add", asked, find_socket(state))
    note(f"a token for {name} with the role {role}; it is shown only now")
    typer.echo(made["secret"])


@app.command("list")
def list_tokens(state: State = None, json: Json = False) -> None:
    """List the tokens; what they are is not kept.

    Example: lepton-rl node token list
    """
    from lepton_rl.node.http.rules import TOKENS
    from lepton_rl.node.http.tokens import TokenBook

    tokens = TokenBook(state_folder(state) / TOKENS).tokens()
    if json:
        shown = ("name", "role", "user", "created", "expires")
        print_json([{name: getattr(token, name) for name in shown} for token in tokens])
        return
    typer.echo(f"{'name':<20} {'role':<8} {'counts for':<20} {'created':<16} expires")
    for token in tokens:
        ends = "never" if token.expires is None else _day(token.expires)
        counts_for = token.user or f"{token.name}@http"
        typer.echo(f"{token.name:<20} {token.role:<8} {counts_for:<20} {_day(token.created):<16} {ends}")


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="Name of the token.")], state: State = None) -> None:
    """Take a token back; it opens nothing from now on.

    Example: lepton-rl node token revoke alice
    """
    from lepton_rl.node.http.token_changes import change_tokens
    from lepton_rl.node.paths import find_socket

    change_tokens(state_folder(state), "token_revoke", {"token": name}, find_socket(state))
    note(f"the token {name} opens nothing any more")


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
