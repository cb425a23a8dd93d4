"""Ferricorn and Gunicorn, each with the accounts in one of the scenarios. Not here: load."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from bank import free_port

HERE = Path(__file__).parent
GUNICORN = "gunicorn -k gthread -w 2 --threads 4 --keep-alive 75 --access-logfile access.log"
DEADLINE = 30


def ferricorn_command(scenario):
    """A connection that is older than a millisecond when it comes back is closed: so each serves one request."""
    words = "ferricorn -c server.toml"
    words += "" if "pool" in scenario else " --max-lifetime 1ms"
    return words + (" --cache-notify" if "notify" in scenario else "")


def processes(group):
    """The pids of all processes of the group."""
    pids = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            # The third field after the name is the group.
            if int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[2]) == group:
                pids.append(int(name))
    return pids


def cpu_seconds(group):
    """That of all processes of the group, to the nanosecond."""
    total = 0
    for pid in processes(group):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~pid << 3 | 2)  # the clock of another process, as clock_getcpuclockid(3) makes it
    return total


class Server:
    """One of them, in a folder and a group of processes of its own."""

    def __init__(self, kind, scenario, database, core, program):
        self.kind, self.scenario = kind, scenario
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="siege-server-")
        # Workers without root's rights are to read it as well.
        os.chmod(self.folder, 0o755)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FERRICORN")}
        environment.pop("XDG_RUNTIME_DIR", None)
        if kind == "Ferricorn":
            self.prepare_ferricorn()
            words = ferricorn_command(scenario).split()
            environment["FERRICORN_DATABASE_URL"] = database
        else:
            words = [*GUNICORN.split(), "--pythonpath", str(HERE), "app:app"]
            environment |= {"DATABASE_URL": database, "SCENARIO": scenario, "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["taskset", "-c", core, program, *words[1:], "-b", f"127.0.0.1:{self.port}"]
        self.log = open(f"{self.folder}/log", "w+")
        self.process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True,
        )
        self.wait()

    def prepare_ferricorn(self):
        text = (HERE / "server.toml").read_text()
        if "cache" not in self.scenario:
            text = re.sub(r"(?m)^(cache|tags|invalidates) = .*\n", "", text)
        Path(self.folder, "server.toml").write_text(text)
        shutil.copytree(HERE / "templates", f"{self.folder}/templates")

    def wait(self):
        until = time.monotonic() + DEADLINE
        while True:
            try:
                self.page()
                return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > until:
                self.log.seek(0)
                raise SystemExit(f"{self.kind}, {self.scenario} does not serve:\n{self.log.read()}")
            time.sleep(0.05)

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, method, path, form=None):
        """The answer's text, over a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        body = urlencode(form) if form else None
        fields = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        connection.request(method, path, body, fields)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{self.kind}, {self.scenario}: {method} {path} was answered {answer.status} {text}")
        return text

    def page(self):
        return self.ask("GET", "/")

    def accounts(self):
        """As the page has them: the id and the balance of each."""
        rows = re.findall(r"<td>(\d+)</td><td>owner \d+</td><td>(-?\d+)</td>", self.page())
        return [(int(number), int(balance)) for number, balance in rows]

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
