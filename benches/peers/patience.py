"""What clients wait at half load while Ferricorn is reloaded, loses workers and is upgraded, beside calm. Run by benches/run-patience;
not a test: it prints."""

import argparse
import json
import os
import random
import signal
import sys
import time
import tomllib
from pathlib import Path

from peer import HERE, Peer

from main import SERVER_CORE, figures, print_machine
from servers import DEADLINE

# From one disturbance to the next, in seconds.
INTERVAL = 2
CAPACITY_SECONDS = 3


class Ferricorn(Peer):
    """With what is done to it. Its pid file names the master that serves."""

    def master(self):
        return int(Path(self.folder, "pid").read_text())

    def workers_now(self):
        """By a file of the kernel's: a search through all of /proc would take milliseconds of a core from who is measured."""
        master = self.master()
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return [pid for pid in map(int, children) if self.is_worker(pid)]

    def is_worker(self, pid):
        try:
            return "-w" in Path(f"/proc/{pid}/comm").read_text()
        except OSError:
            return False

    def nothing(self):
        pass

    def reload(self):
        os.kill(self.master(), signal.SIGHUP)

    def kill_a_worker(self):
        os.kill(random.choice(self.workers_now()), signal.SIGKILL)

    def upgrade(self):
        """Returns when the new master has taken over, and the old one has left."""
        before = self.master()
        os.kill(before, signal.SIGUSR2)
        until = time.monotonic() + DEADLINE
        while self.master() == before or os.path.exists(f"/proc/{before}"):
            self.process.poll()  # which reaps the first of them
            if time.monotonic() > until:
                raise SystemExit(f"no upgrade: {self.group.said()[-2000:]}")
            time.sleep(0.01)


PHASES = {
    "calm": Ferricorn.nothing,
    "a reload (HUP)": Ferricorn.reload,
    "a worker killed (KILL)": Ferricorn.kill_a_worker,
    "an upgrade (USR2)": Ferricorn.upgrade,
    "calm, again": Ferricorn.nothing,
}


def stolen():
    """Milliseconds that the server's core was ready and the machine below this one had it do something else."""
    lines = Path("/proc/stat").read_text().splitlines()
    ticks = next(line.split()[8] for line in lines if line.startswith(f"cpu{SERVER_CORE} "))
    return int(ticks) * 1000 / os.sysconf("SC_CLK_TCK")


def phase(server, disturb, client, connections, rate, seconds):
    """What came of the load, disturbed in the middle of each of its intervals."""
    before = stolen()
    asking = server.start_open_loop(client, connections, rate, seconds)
    begin = time.monotonic()
    for at in range(seconds // INTERVAL):
        time.sleep(max(0, begin + (at + 0.5) * INTERVAL - time.monotonic()))
        disturb(server)
    said = asking.communicate(timeout=seconds + DEADLINE)[0]
    found = json.loads(said) | {"stolen": stolen() - before}
    time.sleep(INTERVAL)  # what the last one began is over before the next phase
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", required=True)
    parser.add_argument("--client", required=True)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, then, too
    plan = tomllib.loads((HERE / "servers.toml").read_text())
    base, hello = plan["base"], plan["page"][0]
    programs = {"ferricorn_service": os.path.abspath(arguments.service)}
    server = Ferricorn(plan["server"][0], base["workers"], programs)
    try:
        measure(server, arguments, hello, base["connections"])
    finally:
        server.close()


def measure(server, arguments, hello, connections):
    server.load(hello, connections, 1)  # warms up
    most = server.load(hello, connections, CAPACITY_SECONDS).rate
    rate = round(most / 2, -3)
    print_machine()
    print(f"server     {server.server['command']}, on one core")
    print(f"client     {connections} connections on the other, {rate:,.0f} requests a second of the {most:,.0f} that wrk gets through")
    print(
        f"\n{arguments.rounds} rounds in turn of {arguments.seconds} s each, with one every {INTERVAL} s; latency from when a request was"
        " due, in ms"
    )
    measured = {name: [] for name in PHASES}
    for _ in range(arguments.rounds):
        for name, disturb in PHASES.items():
            found = phase(server, disturb, arguments.client, connections, int(rate), arguments.seconds)
            measured[name].append(found)
            found["ratio"] = found["p99"] / measured["calm"][-1]["p99"]
            print(f"{name}: {found}", file=sys.stderr)
    print_rounds(measured)


def print_rounds(measured):
    print("\n| meanwhile | answered | lost | p50 | p99 | p99.9 | longest | p99, × calm of the same round | client away | server away |")
    print("|---" * 10 + "|")
    for name, rounds in measured.items():
        answered, lost = (sum(found[what] for found in rounds) for what in ("answered", "lost"))
        columns = [figures([found[what] for found in rounds], 2) for what in ("p50", "p99", "p99.9", "max", "ratio", "away", "stolen")]
        print(f"| {name} | {answered:,} | {lost} | " + " | ".join(columns) + " |")


if __name__ == "__main__":
    main()
