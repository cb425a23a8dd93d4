"""Accounts in a PostgreSQL cluster of their own, in a temporary folder. Not here: who moves money."""

import glob
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile

ACCOUNTS, BALANCE = 20, 1000

# PostgreSQL refuses to run as root; then it runs as this user.
USER = "nobody"

TABLES = f"""
CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL);
INSERT INTO accounts SELECT i, 'owner ' || i, {BALANCE} FROM generate_series(1, {ACCOUNTS}) i;
CREATE TABLE transfers (id bigserial PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount int NOT NULL);
"""

# Accounts whose balance is not what they began with and what was moved since.
WRONG = f"""
SELECT count(*) FROM accounts a WHERE balance <> {BALANCE}
  + (SELECT coalesce(sum(amount), 0) FROM transfers WHERE target = a.id)
  - (SELECT coalesce(sum(amount), 0) FROM transfers WHERE source = a.id)
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Bank:
    def __init__(self, core):
        self.binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.folder = tempfile.mkdtemp(prefix="siege-postgres-")
        self.port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        self.wrapper = ["taskset", "-c", core]
        if os.getuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.wrapper += ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self.run("initdb", "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        # As in the tests' clusters: what is measured is not the disk.
        options = f"-h 127.0.0.1 -p {self.port} -k '' -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
        self.run("pg_ctl", "start", "-w", "-l", f"{self.folder}/log", "-o", options)
        self.sql(TABLES)
        self.sql("VACUUM ANALYZE accounts")

    def run(self, program, *args):
        command = [*self.wrapper, f"{self.binaries}/{program}", "-D", f"{self.folder}/data", *args]
        # Not a pipe: the server inherits it, and reading to its end would wait for the server's.
        with open(f"{self.folder}/said", "w+") as said:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=self.folder)
            said.seek(0)
            if ended.returncode:
                raise SystemExit(f"{command}: {said.read()}")

    def sql(self, text):
        """The first value of the answer, as text."""
        command = [f"{self.binaries}/psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url, "-c", text]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def version(self):
        return self.sql("SHOW server_version")

    def connections_made(self):
        """By anybody so far; asking makes one, too."""
        self.sql("SELECT 1")
        return int(self.sql("SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'"))

    def transfers(self):
        return int(self.sql("SELECT count(*) FROM transfers"))

    def is_settled(self):
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        return self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {others} AND state <> 'idle'") == "0"

    def sum(self):
        return int(self.sql("SELECT sum(balance) FROM accounts"))

    def wrong_accounts(self):
        return int(self.sql(WRONG))

    def accounts(self):
        """The id and the balance of each."""
        rows = "SELECT json_agg(json_build_array(id, balance) ORDER BY id) FROM accounts"
        return [tuple(row) for row in json.loads(self.sql(rows))]

    def close(self):
        self.run("pg_ctl", "stop", "-m", "immediate", "-w")
        shutil.rmtree(self.folder, ignore_errors=True)
