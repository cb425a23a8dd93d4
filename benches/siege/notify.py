"""How long it takes until what one server writes is seen on another one, by `[cache] notify`, and what the word costs those who
write. Run by benches/run-notify; not a test: it prints, and judges nothing but that the answers were right."""

import argparse
import contextlib
import http.client
import os
import signal
import sys
import time
from statistics import median, quantiles
from urllib.parse import urlencode

from bank import Bank
from load import CLIENTS, Siege, again, outcome
from main import CLIENT_CORE, SERVER_CORE, figures, print_machine
from servers import DEADLINE, Server, ferricorn_command

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LISTENING = "cache notifications listening"


class Client:
    """A connection that is kept."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)

    def ask(self, method, path, form=None):
        self.connection.request(method, path, urlencode(form) if form else None, FORM if form else {})
        answer = self.connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, (method, path, answer.status, text)
        return text


def until_listening(server):
    until = time.monotonic() + DEADLINE
    while LISTENING not in open(f"{server.folder}/log").read():
        assert time.monotonic() < until, "it does not listen"
        time.sleep(0.01)


def measure_latency(here, there, writes):
    """In milliseconds, from the answer to the write here to the first page there that has it. The question is in that."""
    writer, reader, waits = Client(here), Client(there), []
    for _ in range(writes):
        old = reader.ask("GET", "/")
        writer.ask("POST", "/transfers", {"source": 1, "target": 2, "amount": 1})
        begin = time.monotonic()
        while reader.ask("GET", "/") == old:
            assert time.monotonic() < begin + DEADLINE, "it is not seen there"
        waits.append((time.monotonic() - begin) * 1e3)
    return waits


def write_all_the_time(siege, server, seconds):
    """Transfers a second."""
    orders = siege.orders(server.url("/transfers"))
    return outcome(siege.start(CLIENTS, seconds, "-i", "-f", orders))["transaction_rate"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ferricorn", required=True)
    parser.add_argument("--writes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, then, too
    program = os.path.abspath(arguments.ferricorn)
    with contextlib.ExitStack() as stack:
        bank = Bank(CLIENT_CORE)
        stack.callback(bank.close)
        siege = Siege(CLIENT_CORE)
        print_machine()
        print(f"servers    two, each {ferricorn_command('cache and pool, notify')}, on one core")
        print(f"database   PostgreSQL {bank.version()}, fsync=off, with the clients on the other core")
        servers = []
        for scenario in ("cache and pool, notify", "cache and pool, notify", "cache and pool"):
            server = Server("Ferricorn", scenario, bank.url, SERVER_CORE, program)
            stack.callback(server.close)
            servers.append(server)
        here, there, silent = servers
        until_listening(here), until_listening(there)
        measure_latency(here, there, 20)  # warms up
        waits = measure_latency(here, there, arguments.writes)
        print(f"\n{arguments.writes} writes, one after the other, from the answer here to the first page there that has it:")
        print(f"  median {median(waits):.2f} ms, p99 {quantiles(waits, n=100)[98]:.2f} ms, most {max(waits):.2f} ms")
        rates = {"with": [], "without": []}
        for _ in range(arguments.rounds):
            for name, server in (("with", here), ("without", silent)):
                rates[name].append(again(lambda: write_all_the_time(siege, server, arguments.seconds)))
        print(f"\nsiege -c{CLIENTS} that only writes, {arguments.rounds} rounds of {arguments.seconds} s for each in turn:")
        for name, values in rates.items():
            print(f"  {figures(values)} transfers a second {name} notify")
    return 0


if __name__ == "__main__":
    sys.exit(main())
