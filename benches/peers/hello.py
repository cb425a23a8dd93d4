"""Hello over kept connections: Ferricorn beside nginx, Gunicorn and Granian, each with two workers on one core and its access log
on, in turn. Run by benches/run-peers; not a test: it prints, and judges nothing but that all answers were good."""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib import metadata
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "siege"))

from bank import free_port  # noqa: E402
from main import CLIENT_CORE, SERVER_CORE, figures, print_machine  # noqa: E402
from servers import DEADLINE, cpu_seconds  # noqa: E402

CONNECTIONS = 32
WARM_UP_SECONDS = 1
GUNICORN = "gunicorn -w 2 --keep-alive 75 --access-logfile access.log --pythonpath HERE -b 127.0.0.1:PORT"
GRANIAN = "granian --interface wsgi --workers 2 --no-ws --access-log --working-dir HERE --host 127.0.0.1 --port PORT"

SERVERS = {
    "Ferricorn, axum": "hello -w 2 --access-logfile access.log -b 127.0.0.1:PORT",
    "Ferricorn, a text of the stock app": "ferricorn -c hello.toml -b 127.0.0.1:PORT",
    "nginx": "nginx -p FOLDER -c FOLDER/nginx.conf",
    "Granian, plain WSGI": f"{GRANIAN} hello_app:plain",
    "Granian, Flask": f"{GRANIAN} hello_app:flask",
    "Gunicorn gthread, plain WSGI": f"{GUNICORN} -k gthread --threads 4 hello_app:plain",
    "Gunicorn gthread, Flask": f"{GUNICORN} -k gthread --threads 4 hello_app:flask",
    "Gunicorn gevent, Flask": f"{GUNICORN} -k gevent hello_app:flask",
}


class Peer:
    """A server in a folder and a group of processes of its own, and what was measured of it."""

    def __init__(self, name, programs):
        self.name, self.port = name, free_port()
        self.rates, self.cpu = [], []
        self.folder = tempfile.TemporaryDirectory(prefix="peer-")
        os.chmod(self.folder.name, 0o777)  # nginx's workers are nobody
        fill = {"PORT": str(self.port), "FOLDER": self.folder.name, "HERE": str(HERE)}

        def filled(text):
            return re.sub("PORT|FOLDER|HERE", lambda found: fill[found[0]], text)

        for file in ("nginx.conf", "hello.toml"):
            Path(self.folder.name, file).write_text(filled((HERE / file).read_text()))
        words = filled(SERVERS[name]).split()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FERRICORN")}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("XDG_RUNTIME_DIR", None)
        self.log = open(f"{self.folder.name}/log", "w")
        self.process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, programs.get(words[0], words[0]), *words[1:]], cwd=self.folder.name,
            env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )
        until = time.monotonic() + DEADLINE
        while not self.answers():
            if time.monotonic() > until:
                raise SystemExit(f"{name} does not serve: {open(self.log.name).read()}")
            time.sleep(0.05)

    def answers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=DEADLINE) as answer:
                return answer.status == 200 and answer.read() == b"Hello from Ferricorn\n"
        except OSError:
            return False

    def load(self, seconds):
        """Requests a second, and microseconds of CPU of all its processes for one."""
        before = cpu_seconds(self.process.pid)
        command = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s"]
        said = subprocess.run([*command, f"http://127.0.0.1:{self.port}/"], capture_output=True, text=True).stdout
        used = cpu_seconds(self.process.pid) - before
        if "Non-2xx" in said or "Socket errors" in said:
            raise SystemExit(f"{self.name}: {said}")
        requests = int(re.search(r"(\d+) requests in", said)[1])
        return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), used * 1e6 / requests

    def measure(self, seconds):
        rate, cpu = self.load(seconds)
        self.rates.append(rate)
        self.cpu.append(cpu)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()
        self.folder.cleanup()


def print_setting(arguments, names):
    print_machine()
    nginx = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True).stderr.split()[-1]
    pins = [pin.split("==")[0] for pin in (HERE / "requirements.txt").read_text().split()]
    print(f"servers    {nginx}, " + ", ".join(f"{pin} {metadata.version(pin)}" for pin in pins))
    print(f"client     wrk -t1 -c{CONNECTIONS} -d{arguments.seconds}s, kept connections, on the other core")
    for name in names:
        print(f"  {name}: {SERVERS[name]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ferricorn", required=True)
    parser.add_argument("--hello", help="the example; left out without it")
    parser.add_argument("--scripts", required=True, help="where gunicorn and granian are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, then, too
    programs = {name: os.path.abspath(f"{arguments.scripts}/{name}") for name in ("gunicorn", "granian")}
    programs |= {"ferricorn": os.path.abspath(arguments.ferricorn), "nginx": "/usr/sbin/nginx"}
    if arguments.hello:
        programs["hello"] = os.path.abspath(arguments.hello)
    names = [name for name, command in SERVERS.items() if command.split()[0] in programs]
    print_setting(arguments, names)
    with contextlib.ExitStack() as stack:
        peers = []
        for name in names:
            peers.append(Peer(name, programs))
            stack.callback(peers[-1].close)
        for peer in peers:
            peer.load(WARM_UP_SECONDS)
        for _ in range(arguments.rounds):
            for peer in peers:
                peer.measure(arguments.seconds)
    ours = peers[0]
    print(f"\n{arguments.rounds} rounds of {arguments.seconds} s for each in turn: the medians, in brackets the least and the most\n")
    print("| hello by | requests a second | the first, × this | µs CPU a request | this, × the first |")
    print("|---|---|---|---|---|")
    for peer in peers:
        faster = figures([our / their for our, their in zip(ours.rates, peer.rates)], 2)
        dearer = figures([their / our for our, their in zip(ours.cpu, peer.cpu)], 2)
        print(f"| {peer.name} | {figures(peer.rates)} | {faster} | {figures(peer.cpu, 1)} | {dearer} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
