"""The command line `lepton-rl`: parses, calls one function, prints.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 2 the user's error, told
in at most three lines; 130 interrupted. Commands import what they need when they run: `--help` is quick.
"""

import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_rl import __version__
from lepton_rl.cli import (
    advice,
    cluster,
    deploy,
    experiments,
    gpus,
    listings,
    node,
    node_gpus,
    node_helpers,
    node_jobs,
    node_results,
    pareto,
    seeing,
    simulation,
    tokens,
    traces,
)
from lepton_rl.cli.printing import Interrupted
from lepton_rl.errors import LeptonError, in_words, nearest

INTERRUPTED = 130
MOST_LINES = 3
MOST_CHARACTERS = 600

app = typer.Typer(
    name="lepton-rl",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
    help="Schedule jobs on GPU clusters: simulate, benchmark and train policies.",
    epilog="Example: lepton-rl simulate --trace jobs.csv --policy sjf --nodes 64 --gpus-per-node 8",
)
app.command("simulate")(simulation.simulate)
app.command("train")(experiments.train)
app.command("benchmark")(experiments.benchmark)
app.command("evaluate")(simulation.evaluate)
app.command("advise")(advice.advise)
app.command("pareto")(pareto.pareto)
app.command("deploy")(deploy.deploy)
app.command("policies")(listings.policies)
app.command("gpus")(gpus.gpus)
app.add_typer(cluster.app, name="cluster")
node.app.command("top")(seeing.top)
node.app.add_typer(tokens.app, name="token")
NODE_COMMANDS = (node_jobs, node_gpus, node_results, node_helpers)  # they add to node.app when they are imported
app.add_typer(node.app, name="node")
app.add_typer(traces.app, name="traces")
app.add_typer(listings.configs, name="configs")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lepton-rl {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words: tuple[str, ...] = ()
    _make_printable()
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Interrupted as stop:
        code, words = INTERRUPTED, stop.args
    except BrokenPipeError:
        # nobody reads on; without this Python would complain once more while it shuts down
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except LeptonError as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"{error.filename or 'input/output'}: {error.strerror or error}")
    except MemoryError:
        return _complain("there is not enough memory for this")
    except RuntimeError as error:  # torch's way to say it
        if "out of memory" not in str(error) and "allocate memory" not in str(error):
            raise
        return _complain("there is not enough memory for this")
    if code == INTERRUPTED:  # the parser, too, may turn Ctrl-C into this code
        print("; ".join(("interrupted", *words)), file=sys.stderr)
    return code


def _make_printable() -> None:
    """Let what a terminal's encoding has no sign for become "?", and what nobody takes go nowhere: work is not lost."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as the process lives
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    _keep_examples_whole(command)
    try:
        result = command.main(arguments, prog_name="lepton-rl", standalone_mode=False)
    except Exception as error:
        # the parser's usage errors; its exception classes have moved between modules
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        hint = f"\nsee: {context.command_path} --help" if context is not None else ""
        return _complain(f"{_usage_sentence(error)}{hint}")
    return result if isinstance(result, int) else 0


def _keep_examples_whole(command: Any) -> None:
    """Leave the examples of a command and of those below it on one line each: a wrapped one does not paste."""
    for text in ("help", "epilog"):
        if getattr(command, text):
            # the parser's mark for a paragraph that is not to be wrapped
            setattr(
                command, text, re.sub(r"^(?=Example: )", "\b\n", inspect.cleandoc(getattr(command, text)), flags=re.M)
            )
    for below in getattr(command, "commands", {}).values():
        _keep_examples_whole(below)


def _usage_sentence(error: Any) -> str:
    """Return what the parser complains of as one plain line."""
    parameter, problems = getattr(error, "param", None), getattr(error.__cause__, "errors", None)
    if parameter is not None and problems is not None:  # a value of the wrong kind: pydantic said so
        name = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name.upper()
        return f"{name}: {in_words(problems()[0])}"
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        known = [name for known in error.ctx.command.params for name in known.opts] if error.ctx else []
        below = [name for name, each in getattr(error.ctx.command, "commands", {}).items() if _takes(each, option)]
        if below:
            return f"{option} stands behind the command: {error.ctx.command_path} {below[0]} {option}"
        # the dashes count for no likeness, and a short word is soon like another
        close = nearest(option.lstrip("-"), [name.lstrip("-") for name in known if name.startswith("--")], 0.7).replace(
            "'", "'--", 1
        )
        return f"there is no option {option}{close}"
    return " ".join(error.format_message().split())


def _takes(command: Any, option: str) -> bool:
    return any(option in parameter.opts for parameter in command.params)


def _complain(message: str) -> int:
    lines = [line for line in message.splitlines() if line.strip()][:MOST_LINES]
    text = "\n".join(line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}..." for line in lines)
    print(f"error: {text}", file=sys.stderr)
    return 2
