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


def clean_environment():
    """Nothing of whoever runs this decides what a server does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FERRICORN")}
    environment.pop("XDG_RUNTIME_DIR", None)
    return environment | {"PYTHONDONTWRITEBYTECODE": "1"}


class Group:
    """A command in a folder and a group of processes of its own, on one core."""

    def __init__(self, name, command, core, folder, environment):
        self.name = name
        self.log = open(f"{folder}/log", "w+")
        self.process = subprocess.Popen(
            ["taskset", "-c", core, *command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log, start_new_session=True,
        )

    def wait(self, serves):
        until = time.monotonic() + DEADLINE
        while not serves():
            if self.process.poll() is not None or time.monotonic() > until:
                said = self.said()
                self.end()
                raise SystemExit(f"{self.name} does not serve:\n{said}")
            time.sleep(0.05)

    def said(self):
        return Path(self.log.name).read_text()

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # whoever is left
        self.log.close()


class Server:
    """One of them, with a folder of its own."""

    def __init__(self, kind, scenario, database, core, program):
        self.kind, self.scenario = kind, scenario
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="siege-server-")
        # Workers without root's rights are to read it as well.
        os.chmod(self.folder, 0o755)
        environment = clean_environment()
        if kind == "Ferricorn":
            self.prepare_ferricorn()
            words = ferricorn_command(scenario).split()
            environment["FERRICORN_DATABASE_URL"] = database
        else:
            words = [*GUNICORN.split(), "--pythonpath", str(HERE), "app:app"]
            environment |= {"DATABASE_URL": database, "SCENARIO": scenario}
        command = [program, *words[1:], "-b", f"127.0.0.1:{self.port}"]
        self.group = Group(f"{kind}, {scenario}", command, core, self.folder, environment)
        self.group.wait(self.serves)

    def prepare_ferricorn(self):
        text = (HERE / "server.toml").read_text()
        if "cache" not in self.scenario:
            text = re.sub(r"(?m)^(cache|tags|invalidates) = .*\n", "", text)
        Path(self.folder, "server.toml").write_text(text)
        shutil.copytree(HERE / "templates", f"{self.folder}/templates")

    def serves(self):
        try:
            return bool(self.page())
        except OSError:
            return False

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
        return cpu_seconds(self.group.process.pid)

    def close(self):
        self.group.end()
        shutil.rmtree(self.folder, ignore_errors=True)
