"""A server of servers.toml in a folder and a group of processes of its own, and what is measured of it. Not here: beside which others."""

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "siege"))

from bank import free_port  # noqa: E402
from main import CLIENT_CORE, SERVER_CORE  # noqa: E402
from servers import DEADLINE, Group, clean_environment, cpu_seconds, processes  # noqa: E402

ITEMS = json.dumps([{"id": at, "name": "acorn", "price": at * 10} for at in range(1, 29)], separators=(",", ":"))
ON_CLIENT_CORE = ["taskset", "-c", CLIENT_CORE]


@dataclass
class Load:
    """One round: requests a second, microseconds of CPU of all processes for one, and errors of sockets and bad answers."""

    rate: float
    cpu: float
    errors: int


class Peer:
    def __init__(self, server, workers, programs, again=False):
        self.server, self.workers, self.port = server, workers, free_port()
        self.name = server["name"] + (", again" if again else "")
        self.temporary = tempfile.TemporaryDirectory(prefix="peer-")
        self.folder = self.temporary.name
        os.chmod(self.folder, 0o777)  # nginx's workers are nobody
        self.fill()
        environment = clean_environment() | {"PYTHONPATH": str(HERE)}
        words = self.filled(server["command"]).split()
        command = [programs[words[0]], *words[1:]]
        self.group = Group(self.name, command, SERVER_CORE, self.folder, environment)
        self.process = self.group.process
        self.group.wait(self.serves)

    def fill(self):
        files = Path(self.folder, "files")
        files.mkdir()
        (files / "page.txt").write_text("a line of some text, 32 bytes.\r\n" * 320)
        (files / "download.bin").write_text("x" * (1 << 20))
        for name in ("nginx.conf", "stock.toml"):
            Path(self.folder, name).write_text(self.filled((HERE / name).read_text()))

    def filled(self, text):
        fill = {"PORT": self.port, "WORKERS": self.workers, "FOLDER": self.folder, "ITEMS": ITEMS}
        return re.sub("|".join(fill), lambda found: str(fill[found[0]]), text)

    def can(self, page):
        return page["name"] not in self.server.get("cannot", [])

    def url(self, page):
        path = self.server.get("paths", {}).get(page["name"], page["path"])
        return f"http://127.0.0.1:{self.port}{path}"

    def serves(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=DEADLINE).status == 200
        except OSError:
            return False

    def check(self, page):
        """All do the same work: the answer is as long as it should be, but for spaces in JSON."""
        body = b"x" * page["body"] if "body" in page else None
        with urllib.request.urlopen(self.url(page), data=body, timeout=DEADLINE) as answer:
            length = len(answer.read())
        if not 0 <= length - page["bytes"] <= page["bytes"] / 50:
            raise SystemExit(f"{self.name}, {page['name']}: {length} bytes")

    def load(self, page, connections, seconds):
        command = [*ON_CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        if page.get("close"):
            command += ["-H", "Connection: close"]
        if "body" in page:
            script = Path(self.folder, "post.lua")
            script.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {page["body"]})\n')
            command += ["-s", str(script)]
        before = cpu_seconds(self.process.pid)
        said = subprocess.run([*command, self.url(page)], capture_output=True, text=True).stdout
        used = cpu_seconds(self.process.pid) - before
        requests = int(re.search(r"(\d+) requests in", said)[1])
        if not requests and seconds < DEADLINE:
            return self.load(page, connections, seconds * 3)  # an answer takes longer than a round
        failed = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        errors = sum(int(count) for found in (failed, bad) if found for count in found.groups())
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
        return Load(rate, used * 1e6 / requests, errors)

    def start_open_loop(self, client, connections, rate, seconds):
        """Asks for hello at a fixed rate, and prints what came of it as JSON."""
        command = [*ON_CLIENT_CORE, client, f"127.0.0.1:{self.port}", str(connections), str(rate), str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def open_loop(self, client, connections, rate, seconds):
        asking = self.start_open_loop(client, connections, rate, seconds)
        said = asking.communicate(timeout=seconds + DEADLINE)[0]
        if asking.returncode:
            raise SystemExit(f"{self.name}: {client} failed")
        return json.loads(said)

    def memory(self):
        """MiB for each worker, its part of the processes beside them included: proportional share, and private and dirty."""
        sums = {"Pss": 0, "Private_Dirty": 0}
        for pid in processes(self.process.pid):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            for name, kib in re.findall(r"(\w+):\s+(\d+) kB", text):
                if name in sums:
                    sums[name] += int(kib) / 1024 / self.workers
        return tuple(sums.values())

    def close(self):
        self.group.end()
        self.temporary.cleanup()
