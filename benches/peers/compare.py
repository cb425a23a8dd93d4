"""Ferricorn beside other servers: the pages of servers.toml, then one axis after the other varied from the base case. All servers are
on one core, in turn, and the client is on the other. Run by benches/run-peers; not a test: it prints, draws, and judges nothing
but that answers were good."""

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from statistics import median

from peer import HERE, Peer

import chart
import tables
from main import print_machine

MEMORY_ROUNDS = 3
# In place of one second for one server.
SIDE_BY_SIDE_SECONDS = 3


class Comparison:
    def __init__(self, plan, programs, rounds, seconds):
        self.plan, self.programs, self.rounds, self.seconds = plan, programs, rounds, seconds
        self.workers, self.connections = plan["base"]["workers"], plan["base"]["connections"]
        self.hello = plan["page"][0]

    @contextlib.contextmanager
    def serving(self, servers, workers):
        with contextlib.ExitStack() as stack:
            peers = []
            for server in servers:
                for again in (False, True) if server.get("again") else (False,):
                    peers.append(Peer(server, workers, self.programs, again))
                    stack.callback(peers[-1].close)
            for peer in peers:
                peer.load(self.hello, self.connections, 1)  # warms up
            yield peers

    def in_turn(self, what, peers, measure):
        """What each round measured of each of them, by name."""
        begin = time.monotonic()
        measured = {peer.name: [] for peer in peers}
        for _ in range(self.rounds):
            for peer in peers:
                measured[peer.name].append(measure(peer))
        print(f"{what}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
        return measured

    def pages(self, peers):
        for peer in peers:
            for page in filter(peer.can, self.plan["page"]):
                peer.check(page)
        pages = {}
        for page in self.plan["page"]:
            able = [peer for peer in peers if peer.can(page)]
            pages[page["name"]] = self.in_turn(
                page["name"], able, lambda peer: peer.load(page, self.connections, self.seconds))
        return pages

    def side_by_side(self, peers):
        """All at the same time, so that whatever the machine does meanwhile is done to each of them."""
        peers = [peer for peer in peers if peer.server.get("fast") and not peer.name.endswith("again")]
        seconds = SIDE_BY_SIDE_SECONDS * self.seconds
        pages = {}
        for page in self.plan["page"]:
            able = [peer for peer in peers if peer.can(page)]
            measured = pages[page["name"]] = {peer.name: [] for peer in able}
            with ThreadPoolExecutor(len(able)) as threads:
                for _ in range(self.rounds):
                    loads = threads.map(lambda peer: peer.load(page, self.connections, seconds), able)
                    for peer, found in zip(able, loads):
                        measured[peer.name].append(found)
            print(f"{page['name']}, side by side", file=sys.stderr)
        return pages

    def by_connections(self, peers, base):
        """To open many takes time, too."""
        mains = [peer for peer in peers if peer.server.get("main")]
        columns = {self.connections: {peer.name: base[peer.name] for peer in mains}}
        for count in self.plan["axes"]["connections"]:
            seconds = self.seconds + count // 2500
            columns[count] = self.in_turn(
                f"{count} connections", mains, lambda peer: peer.load(self.hello, count, seconds))
        return dict(sorted(columns.items()))

    def by_workers(self, base):
        columns = {}
        for count in self.plan["axes"]["workers"]:
            mains = [server for server in self.plan["server"] if server.get("main")]
            with self.serving(mains, count) as peers:
                columns[count] = self.in_turn(
                    f"{count} workers", peers, lambda peer: peer.load(self.hello, self.connections, self.seconds))
        columns[self.workers] = {name: base[name] for name in columns[count]}
        return dict(sorted(columns.items()))

    def latency(self, peers, base):
        columns = {}
        for rate in self.plan["latency"]["rates"]:
            able = [peer for peer in peers if median(load.rate for load in base[peer.name]) >= 2 * rate]
            columns[f"{rate:,}"] = self.in_turn(
                f"latency at {rate} requests a second", able,
                lambda peer: peer.open_loop(self.programs["open_loop"], self.connections, rate, 2 * self.seconds))
        return columns

    def memory(self):
        """Each alone, since servers of one program share its pages."""
        measured = {}
        for server in self.plan["server"]:
            for _ in range(min(self.rounds, MEMORY_ROUNDS)):
                with self.serving([server | {"again": False}], self.workers) as peers:
                    measured.setdefault(server["name"], []).append(peers[0].memory())
        return measured


def versions(programs):
    nginx = subprocess.run([programs["nginx"], "-v"], capture_output=True, text=True).stderr.split("/")[-1].strip()
    packages = [pin.split("==")[0] for pin in (HERE / "requirements.txt").read_text().split()]
    packages += ["uwsgi"] if "uwsgi" in programs else []
    pinned = tomllib.loads((HERE / "Cargo.lock").read_text())["package"]
    crates = [f"{crate['name']} {crate['version']}" for crate in pinned if crate["name"] in ("actix-web", "axum", "hyper")]
    return f"nginx {nginx}, " + ", ".join(crates + [f"{name} {metadata.version(name)}" for name in packages])


def print_setting(comparison):
    plan, programs = comparison.plan, comparison.programs
    print_machine()
    print(f"servers    {versions(programs)}, Python {platform.python_version()}; all on one core, one is asked at a time")
    print(f"client     wrk -t1 -c{comparison.connections} -d{comparison.seconds}s on the other core; "
          f"{comparison.workers} workers, kept connections, but where it says otherwise")
    for server in plan["server"]:
        print(f"  {server['name']}: {server['command']}")


def programs_in(arguments):
    """Where each program is; one that is not there has its servers left out."""
    found = {path.name: str(path.resolve()) for path in map(Path, arguments.programs)}
    for folder in arguments.folders:
        for name in os.listdir(folder):
            found.setdefault(name, os.path.abspath(f"{folder}/{name}"))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folders", nargs="+", required=True, help="where programs are")
    parser.add_argument("--programs", nargs="+", default=[], help="more of them")
    parser.add_argument("--only", help="servers whose name has this, beside the first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--svg", required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, then, too
    programs = programs_in(arguments)
    plan = tomllib.loads((HERE / "servers.toml").read_text())
    first, *others = plan["server"]
    others = [server for server in others if not arguments.only or arguments.only in server["name"]]
    plan["server"] = [first] + [server for server in others if server["command"].split()[0] in programs]
    comparison = Comparison(plan, programs, arguments.rounds, arguments.seconds)
    print_setting(comparison)
    print(f"\n{arguments.rounds} rounds of {arguments.seconds} s for each in turn: the medians, in brackets the least and the most")
    compare(comparison, arguments.svg)
    return 0


def compare(comparison, svg):
    """Prints each table as soon as it can: what goes wrong later does not cost what came before."""
    with comparison.serving(comparison.plan["server"], comparison.workers) as peers:
        pages = comparison.pages(peers)
        tables.print_table("Requests a second", "server", pages, tables.rate)
        tables.print_table("µs CPU a request", "server", pages, tables.cpu)
        tables.print_table("µs CPU a request, × the first server", "server", pages, tables.ratio)
        hello = pages[comparison.hello["name"]]
        draw(svg, hello)
        together = comparison.side_by_side(peers)
        tables.print_table("Side by side, µs CPU a request", "server", together, tables.cpu)
        tables.print_table("Side by side, µs CPU a request, × the first server", "server", together, tables.ratio)
        connections = comparison.by_connections(peers, hello)
        tables.print_table(
            "By connections, µs CPU a request, and × the first", "hello by", connections, tables.cpu_and_ratio)
        latency = comparison.latency(peers, hello)
        tables.print_table("Latency at so many requests a second, in ms: p50 / p99 / p99.9 / the longest", "hello by", latency,
                           tables.latency)
    tables.print_table("By workers, µs CPU a request, and × the first", "hello by", comparison.by_workers(hello),
                       tables.cpu_and_ratio)
    memory = {"proportional, private dirty": comparison.memory()}
    tables.print_table("MiB for each worker", "server", memory, tables.memory)


def draw(path, hello):
    rows = []
    for name, loads in hello.items():
        per_second = [1e6 / load.cpu for load in loads]
        kind = "ours" if name.startswith("Ferricorn") else "theirs"
        rows.append((name, kind, min(per_second), median(per_second), max(per_second)))
    title = "Requests of hello for a second of CPU: the median, and the least and the most"
    Path(path).write_text(chart.bars(title, sorted(rows, key=lambda row: -row[3])))
    print(f"\ndrawn in {path}")


if __name__ == "__main__":
    sys.exit(main())
