"""The app of server.toml as Flask's users write it: psycopg, its pool, and a cache in each process. The variable SCENARIO has
which. No process hears what another one changes, so a page may be old for as long as it is kept."""

import os
import threading

import psycopg
from cachetools import TTLCache
from flask import Flask, render_template, request
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

URL = os.environ["DATABASE_URL"]
SCENARIO = os.environ["SCENARIO"]

ACCOUNTS = "SELECT id, owner, balance FROM accounts ORDER BY id"
LOCK = "SELECT id FROM accounts WHERE id IN (%(source)s, %(target)s) ORDER BY id FOR UPDATE"
TAKE = "UPDATE accounts SET balance = balance - %(amount)s WHERE id = %(source)s"
GIVE = "UPDATE accounts SET balance = balance + %(amount)s WHERE id = %(target)s"
NOTE = "INSERT INTO transfers (source, target, amount) VALUES (%(source)s, %(target)s, %(amount)s) RETURNING id"

app = Flask(__name__)
options = {"row_factory": dict_row}
pool = ConnectionPool(URL, kwargs=options, min_size=1, max_size=4, open=True) if "pool" in SCENARIO else None
cache = TTLCache(maxsize=10_000, ttl=60) if "cache" in SCENARIO else None
cache_lock = threading.Lock()


def connect():
    """A connection; its transaction is committed where nothing is raised."""
    return pool.connection() if pool else psycopg.connect(URL, **options)


def make():
    with connect() as db:
        rows = db.execute(ACCOUNTS).fetchall()
    return render_template("accounts.html", rows=rows)


@app.get("/")
def page():
    if cache is None:
        return make()
    with cache_lock:
        kept = cache.get("/")
    if kept is None:
        kept = make()
        with cache_lock:
            cache["/"] = kept
    return kept


@app.post("/transfers")
def transfer():
    values = {name: int(request.form[name]) for name in ("source", "target", "amount")}
    with connect() as db:
        for statement in (LOCK, TAKE, GIVE, NOTE):
            rows = db.execute(statement, values)
        made = rows.fetchone()
    if cache is not None:
        with cache_lock:
            cache.clear()
    return made
