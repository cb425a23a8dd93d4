"""Hello, by Flask and by nobody but the server."""

from flask import Flask

TEXT = "Hello from Ferricorn\n"

flask = Flask(__name__)


@flask.get("/")
def hello():
    return TEXT, {"Content-Type": "text/plain; charset=utf-8"}


def plain(_environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(TEXT)))])
    return [TEXT.encode()]
