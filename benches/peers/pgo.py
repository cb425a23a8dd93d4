"""What a profile is worth: `train` has programs that count themselves serve all pages, `compare` asks what was built by the counts side by
side with what was built without. Run by benches/run-pgo; not a test: it prints."""

import argparse
import signal
import sys
import tomllib

from compare import Comparison, programs_in
from peer import HERE
from tables import print_table

from main import figures, print_machine

# Before the name of a program: the one that a profile was used for.
PROFILED = "profiled/"
TRAINING_SECONDS = 2


def train(comparison):
    with comparison.serving(comparison.plan["server"], comparison.workers) as peers:
        for peer in peers:
            for page in filter(peer.can, comparison.plan["page"]):
                peer.load(page, comparison.connections, TRAINING_SECONDS)


def compare(comparison, others):
    """Ours, each a second time and once more by the profile, and others: all at the same time."""
    ours = comparison.plan["server"]
    again = [server | {"name": f"{server['name']}, once more"} for server in ours]
    profiled = [
        server | {"name": f"{server['name']}, by a profile", "command": PROFILED + server["command"]} for server in ours
    ]
    with comparison.serving([*ours, *again, *profiled, *others], comparison.workers) as peers:
        pages = comparison.side_by_side(peers)
    print_table("Side by side, µs CPU a request", "server", pages, lambda loads, _: figures([load.cpu for load in loads], 1))
    print_table("The same, × what was built without a profile; others × the first", "server",
                {page: ratios(measured, ours) for page, measured in pages.items()}, lambda found, _: figures(found, 3))


def ratios(measured, ours):
    """Of each server to the one of ours that it is built from, or else to the first."""
    names = [server["name"] for server in ours if server["name"] in measured]
    found = {}
    for name, loads in measured.items():
        base = next((base for base in names if name.startswith(base)), names[0])
        found[name] = [load.cpu / of_base.cpu for load, of_base in zip(loads, measured[base])]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("train", "compare"))
    parser.add_argument("--folders", nargs="+", required=True, help="where programs are")
    parser.add_argument("--profiled", nargs="+", default=[], help="where those are that a profile was used for")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, then, too
    plan = tomllib.loads((HERE / "servers.toml").read_text())
    fast = [server | {"again": False} for server in plan["server"] if server.get("fast")]
    plan["server"] = [server for server in fast if server["name"].startswith("Ferricorn")]
    others = [server for server in fast if server["name"] in ("bare hyper", "actix-web")]
    profiled = programs_in(argparse.Namespace(programs=[], folders=arguments.profiled))
    programs = programs_in(argparse.Namespace(programs=[], folders=arguments.folders))
    programs |= {PROFILED + name: path for name, path in profiled.items()}
    comparison = Comparison(plan, programs, arguments.rounds, 1)
    if arguments.what == "train":
        train(comparison)
    else:
        print_machine()
        print(f"client     wrk, {comparison.connections} connections to each server; {comparison.workers} workers")
        print(f"{arguments.rounds} rounds of 3 s, all at the same time: the medians, in brackets the least and the most")
        compare(comparison, others)
    return 0


if __name__ == "__main__":
    sys.exit(main())
