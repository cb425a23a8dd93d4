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

from main import print_machine
from servers import DEADLINE, processes

# From one disturbance to the next.
PAUSE = 2
CAPACITY_SECONDS = 3


class Ferricorn(Peer):
    """With what is done to it. Its pid file names the master that serves."""

    def master(self):
        return int(Path(self.folder, "pid").read_text())

    def workers_now(self):
        return [pid for pid in processes(self.process.pid) if self.is_worker(pid)]

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


def phase(server, disturb, client, connections, rate, seconds):
    """What came of the load, and how often it was disturbed."""
    asking = server.start_open_loop(client, connections, rate, seconds)
    end, times = time.monotonic() + seconds, 0
    while time.monotonic() + PAUSE < end:
        time.sleep(PAUSE)
        disturb(server)
        times += 1
    said = asking.communicate(timeout=seconds + DEADLINE)[0]
    time.sleep(PAUSE)  # what the last one began is over before the next phase
    return json.loads(said), times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", required=True)
    parser.add_argument("--client", required=True)
    parser.add_argument("--seconds", type=int, default=20)
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
    print(f"\n{arguments.seconds} s each, with one every {PAUSE} s; latency from when a request was due, in ms\n")
    print("| meanwhile | times | answered | lost | p50 | p99 | p99.9 | longest | p99, × calm |")
    print("|---|---|---|---|---|---|---|---|---|")
    calm = None
    for name, disturb in PHASES.items():
        found, times = phase(server, disturb, arguments.client, connections, int(rate), arguments.seconds)
        calm = calm or found["p99"]
        shares = " | ".join(f"{found[share]:.2f}" for share in ("p50", "p99", "p99.9", "max"))
        times = times if disturb is not Ferricorn.nothing else ""
        print(f"| {name} | {times} | {found['answered']:,} | {found['lost']} | {shares} | {found['p99'] / calm:.2f} |")


if __name__ == "__main__":
    main()
