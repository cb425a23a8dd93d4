"""The pages of the peers, by Flask and by nobody but the server."""

import json
import os
from wsgiref.util import FileWrapper

from flask import Flask, jsonify, request, send_from_directory

TEXT = "Hello from Ferricorn\n"
PLAIN = "text/plain; charset=utf-8"
DOWNLOAD = b"x" * (1 << 20)
FILES = os.path.abspath("files")


def items():
    return [{"id": number, "name": "acorn", "price": number * 10} for number in range(1, 29)]


flask = Flask(__name__)


@flask.get("/")
def hello():
    return TEXT, {"Content-Type": PLAIN}


@flask.get("/json")
def rows():
    return jsonify(items())


@flask.post("/length")
def length():
    return str(len(request.get_data())), {"Content-Type": PLAIN}


@flask.get("/download")
def download():
    return DOWNLOAD, {"Content-Type": "application/octet-stream"}


@flask.get("/files/<path:name>")
def file(name):
    return send_from_directory(FILES, name)


def plain(environ, start_response):
    path, kind = environ["PATH_INFO"], PLAIN
    if path == "/":
        body = TEXT.encode()
    elif path == "/json":
        body, kind = json.dumps(items(), separators=(",", ":")).encode(), "application/json"
    elif path == "/length":
        body = str(len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))).encode()
    elif path == "/download":
        body, kind = DOWNLOAD, "application/octet-stream"
    else:
        file = open(os.path.join(FILES, os.path.basename(path)), "rb")
        size = os.fstat(file.fileno()).st_size
        start_response("200 OK", [("Content-Type", PLAIN), ("Content-Length", str(size))])
        return environ.get("wsgi.file_wrapper", FileWrapper)(file)
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
