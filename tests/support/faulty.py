"""A program that does what its question says, and else answers with the question and its own pid."""

import json
import os
import sys
import time


def say(text):
    os.write(1, text.encode())


if "slow" in sys.argv:
    time.sleep(1.5)
for line in sys.stdin:
    text = json.loads(line)["text"]
    print("asked", text, file=sys.stderr, flush=True)
    match text:
        case "hang":
            time.sleep(1000)
        case "die":
            os._exit(3)
        case "die halfway":
            say('{"pid":')
            os._exit(4)
        case "garbage":
            say("no \x1b JSON\n")
        case "long":
            say('"' + "x" * 70_000 + '"\n')
        case "endless":
            while True:
                say("x" * 1000)
        case "twice":
            say("1\n2\n")
        case "colour":
            os.write(2, b"\x1b[31mred\xff\n")
            say("{}\n")
        case "child":
            if os.fork() == 0:
                time.sleep(1000)
            say(json.dumps({"pid": os.getpid()}) + "\n")
        case _:
            say(json.dumps({"text": text, "pid": os.getpid()}) + "\n")
