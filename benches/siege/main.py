"""A load test with siege: a page over PostgreSQL with and without a cache, with and without a pool, by the stock program and by
Flask on Gunicorn; and whether money is lost when it is moved about meanwhile. Run by benches/run-siege; not a test: it prints,
draws, and judges nothing but that the answers were right."""

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from statistics import median

import chart
from bank import ACCOUNTS, BALANCE, Bank
from load import CLIENTS, MOVERS, Siege, again, outcome
from servers import DEADLINE, GUNICORN, Server, ferricorn_command

# Names as the servers know them, and as people do.
SCENARIOS = {
    "plain": "no cache, a connection a request",
    "pool": "no cache, a pool",
    "cache": "a cache, a connection a request",
    "cache and pool": "a cache and a pool",
}

# The server runs on one core, and whoever asks it, and the database, on the other.
SERVER_CORE, CLIENT_CORE = "0", "1"

# How often money is moved and then looked for, each time over new connections.
LOOKS = 20


class Case:
    """A server in a scenario, and what was measured of it."""

    def __init__(self, server):
        self.server = server
        self.rates, self.cpu, self.longest, self.connections = [], [], [], []

    def name(self):
        return f"{self.server.kind}, {SCENARIOS[self.server.scenario]}"

    def measure(self, siege, bank, seconds):
        made, used = bank.connections_made(), self.server.cpu_seconds()
        counts = siege.read(self.server.url("/"), seconds)
        used, made = self.server.cpu_seconds() - used, bank.connections_made() - made
        requests = counts["transactions"]
        self.rates.append(counts["transaction_rate"])
        self.cpu.append(used * 1e6 / requests)
        self.longest.append(counts["longest_transaction"] * 1e3)
        # Two are the questions' own.
        self.connections.append(max(made - 2, 0) / requests)

    def move_money(self, siege, bank, seconds):
        before, total = bank.transfers(), ACCOUNTS * BALANCE
        moving, reading = siege.begin_transfers(self.server.url("/transfers"), self.server.url("/"), seconds)
        self.seen, self.wrong_pages = 0, 0
        while reading.poll() is None and time.monotonic() < reading.due:
            page = self.server.accounts()
            self.seen += 1
            self.wrong_pages += len(page) != ACCOUNTS or sum(balance for _, balance in page) != total
        try:
            answered, self.reads = int(outcome(moving)["transactions"]), outcome(reading)["transaction_rate"]
        finally:
            moving.kill(), reading.kill()
        wait("no transaction is open", bank.is_settled)
        self.answered, self.moves = answered, answered / seconds
        self.committed = bank.transfers() - before
        # Those whose client was told to stop before the answer came were carried out, too.
        assert answered <= self.committed <= answered + MOVERS, (self.name(), answered, self.committed)
        self.sum, self.wrong_accounts = bank.sum(), bank.wrong_accounts()
        self.old = sum(self.looks_old(bank) for _ in range(LOOKS))

    def looks_old(self, bank):
        """Whether the page is one from before a transfer that was answered before it was asked for."""
        for _ in range(4):
            self.server.page()  # so that every process has it in its cache
        self.server.ask("POST", "/transfers", {"source": 1, "target": 2, "amount": 1})
        return self.server.accounts() != bank.accounts()


def wait(what, condition):
    until = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"not within {DEADLINE} s: {what}")
        time.sleep(0.01)


def figures(values, digits=0):
    """The median, and in brackets the least and the most."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def print_machine():
    processor = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    load = f"load {os.getloadavg()[0]:.1f} before"
    print(f"machine    {os.cpu_count()} × {processor}, {platform.system()} {platform.release()}, {load}")


def print_setting(arguments, bank, siege):
    print_machine()
    version = subprocess.run([arguments.ferricorn, "--version"], capture_output=True, text=True).stdout.strip()
    print(f"servers    {version}: {ferricorn_command('pool')}; without a pool: {ferricorn_command('plain')}")
    if arguments.gunicorn:
        pins = Path(__file__).with_name("requirements.txt").read_text().split()
        names = [pin.split("==")[0].split("[")[0] for pin in pins]
        pins = ", ".join(f"{name} {metadata.version(name)}" for name in names)
        print(f"           Python {platform.python_version()}, {pins}: {GUNICORN}")
    print(f"client     {siege.version()}: siege -b -c{CLIENTS} -t{arguments.seconds}S URL, kept connections")
    print(f"database   PostgreSQL {bank.version()}, fsync=off; a page of {ACCOUNTS} rows")
    print("cores      the server on one, siege and PostgreSQL on the other; all servers stand by, one is asked at a time")


def print_table(cases, arguments):
    print(f"\n{arguments.rounds} rounds of {arguments.seconds} s for each in turn: the medians, in brackets the least and the most;")
    print(f"then {arguments.seconds} s in which {MOVERS} clients transfer and {CLIENTS - MOVERS} read\n")
    print("| server | cache | pool | requests a second | µs CPU a request | longest, ms | connections a request "
          "| transfers a second | pages beside them | sum kept | old after a write |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        scenario = case.server.scenario
        kept = case.sum == ACCOUNTS * BALANCE and not case.wrong_accounts and not case.wrong_pages
        cells = [
            case.server.kind, "yes" if "cache" in scenario else "no", "yes" if "pool" in scenario else "no",
            figures(case.rates), figures(case.cpu), figures(case.longest), f"{median(case.connections):.2f}",
            f"{case.moves:,.0f}", f"{case.reads:,.0f}", "yes" if kept else "**NO**", f"{case.old} of {LOOKS}",
        ]
        print(f"| {' | '.join(cells)} |")


def print_transfers(cases, bank):
    print("\nmoney")
    for case in cases:
        print(f"  {case.name()}: {case.answered} transfers answered, {case.committed} committed, sum {case.sum} of "
              f"{ACCOUNTS * BALANCE}, {case.wrong_accounts} balances that the transfers do not explain, "
              f"{case.wrong_pages} of {case.seen} pages with another sum")
    print(f"  at the end of all: {bank.transfers()} transfers, sum {bank.sum()}, "
          f"{bank.wrong_accounts()} balances that they do not explain")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ferricorn", required=True)
    parser.add_argument("--gunicorn", help="left out without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--svg", required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, then, too
    arguments.ferricorn = os.path.abspath(arguments.ferricorn)  # each server has a folder of its own
    programs = {"Ferricorn": arguments.ferricorn}
    if arguments.gunicorn:
        programs["Flask on Gunicorn"] = os.path.abspath(arguments.gunicorn)
    with contextlib.ExitStack() as stack:
        bank = Bank(CLIENT_CORE)
        stack.callback(bank.close)
        siege = Siege(CLIENT_CORE)
        print_setting(arguments, bank, siege)
        cases = []
        for kind, program in programs.items():
            for scenario in SCENARIOS:
                server = Server(kind, scenario, bank.url, SERVER_CORE, program)
                stack.callback(server.close)
                assert server.accounts() == bank.accounts(), f"{kind}, {scenario}"
                cases.append(Case(server))
        for case in cases:
            again(lambda: siege.read(case.server.url("/"), 1))  # warms up
        for _ in range(arguments.rounds):
            for case in cases:
                again(lambda: case.measure(siege, bank, arguments.seconds))
        for case in cases:
            again(lambda: case.move_money(siege, bank, arguments.seconds))
        print_table(cases, arguments)
        print_transfers(cases, bank)
    rows = [
        (case.name(), "ours" if case.server.kind == "Ferricorn" else "theirs",
         min(case.rates), median(case.rates), max(case.rates))
        for case in cases
    ]
    title = f"Requests a second, siege -c{CLIENTS}: the median, and the least and the most of {arguments.rounds} rounds"
    Path(arguments.svg).write_text(chart.bars(title, rows))
    print(f"\ndrawn in {arguments.svg}")
    right = all(case.sum == ACCOUNTS * BALANCE and not case.wrong_accounts and not case.wrong_pages for case in cases)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
