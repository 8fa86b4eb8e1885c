"""`python -m benchmarks`: measure, print a table, write JSON or the table of a page."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks import commands, decisions, environments, hardware, node, report, traces, training, transfers
from benchmarks.rows import Row

# Training and transfers are last: they load torch, which a decision is measured without.
BENCHMARKS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "vector-env": environments.vector_env,
    "nodes": environments.growth_with_nodes,
    "reset": environments.reset_and_memory,
    "traces": traces.whole_traces,
    "hardware": hardware.hardware_model,
    "simulate": commands.simulate_process,
    "help": commands.help_screen,
    "decision": decisions.one_decision,
    "node": node.daemon,
    "training": training.training,
    "transfers": transfers.transfers,
}
NEED_TORCH = ("training", "transfers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to run, all without a name: {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="replace the table between the markers of PAGE")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    chosen = parser.parse_args(arguments)
    for name in chosen.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is called {name!r}; known: {', '.join(BENCHMARKS)}")
    if chosen.markdown and (chosen.quick or chosen.names):
        parser.error("--markdown writes the table of a whole run: leave out names and --quick")
    rows = _measure(chosen.names or list(BENCHMARKS), chosen.quick)
    facts = report.machine()
    everything = [row for some in rows.values() for row in some]
    report.print_table(everything, chosen.quick)
    if chosen.json:
        report.write_json(rows, facts, chosen.quick, chosen.json)
    if chosen.markdown:
        report.write_markdown(everything, facts, chosen.markdown)
    return 0


def _measure(names: Sequence[str], quick: bool) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for name in BENCHMARKS:
        if name not in names:
            continue
        if name in NEED_TORCH and find_spec("sb3_contrib") is None:
            print(f"{name} is left out: it needs pip install 'lepton-rl[train]'", file=sys.stderr)
            continue
        began = time.perf_counter()
        print(f"{name} ...", end="", file=sys.stderr, flush=True)
        rows[name] = list(BENCHMARKS[name](quick))
        print(f" {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
