"""siege(1): how it is told what to do, and what it says. Not here: against whom."""

import contextlib
import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

from bank import ACCOUNTS

# How long siege may take to end when its time is over. At times its threads wait for each other for ever.
PATIENCE = 10

CLIENTS = 25
# While money is moved, some clients move and the others read.
MOVERS = 10

SETTINGS = """\
verbose = false
quiet = true
json_output = true
show-logfile = false
logging = false
protocol = HTTP/1.1
connection = keep-alive
parser = false
cache = false
benchmark = true
delay = 0
failures = 1000000
"""


class Hung(Exception):
    """siege did not end."""


def again(work):
    """What siege did not end with is done anew, some times."""
    for _ in range(3):
        with contextlib.suppress(Hung):
            return work()
    return work()


class Siege:
    def __init__(self, core):
        self.core = core
        self.folder = tempfile.TemporaryDirectory(prefix="siege-")
        Path(self.folder.name, "siegerc").write_text(SETTINGS)

    def version(self):
        said = subprocess.run(["siege", "--version"], capture_output=True, text=True, env=self.environment())
        return next(line for line in (said.stdout + said.stderr).splitlines() if line.startswith("SIEGE"))

    def environment(self):
        # Where it would make a folder.
        return os.environ | {"HOME": self.folder.name}

    def start(self, clients, seconds, *target):
        command = ["taskset", "-c", self.core, "siege", "-R", f"{self.folder.name}/siegerc", "-b"]
        command += [f"-c{clients}", f"-t{seconds}S", *target]
        siege = subprocess.Popen(
            command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        siege.due = time.monotonic() + seconds + PATIENCE
        return siege

    def read(self, url, seconds):
        return outcome(self.start(CLIENTS, seconds, url))

    def begin_transfers(self, transfers, page, seconds):
        """Those who move money, and those who read meanwhile; both are still at it."""
        moving = self.start(MOVERS, seconds, "-i", "-f", self.orders(transfers))
        return moving, self.start(CLIENTS - MOVERS, seconds, page)


    def orders(self, transfers):
        """A file of transfers, from which each client picks at random."""
        dice = random.Random(1)
        path = Path(self.folder.name, "orders")
        path.write_text("".join(f"{transfers} POST {order(dice)}\n" for _ in range(400)))
        return str(path)


def order(dice):
    source, target = dice.sample(range(1, ACCOUNTS + 1), 2)
    return f"source={source}&target={target}&amount={dice.randint(1, 50)}"


def outcome(siege):
    """Its own counts, by the names that it gives them."""
    try:
        said = siege.communicate(timeout=max(siege.due - time.monotonic(), 0.1))[0]
    except subprocess.TimeoutExpired:
        siege.kill()
        siege.wait()
        raise Hung
    try:
        counts = json.loads(said[said.index("{"):])
    except ValueError:
        raise SystemExit(f"siege said {said!r}")
    if counts["failed_transactions"]:
        raise SystemExit(f"requests failed: {counts}")
    return counts
