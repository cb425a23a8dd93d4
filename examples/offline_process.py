"""Answers each question with figures about its text: a JSON document a line, in and out, until the input ends."""

import json
import sys


def measure(text):
    words = text.split()
    return {"words": len(words), "longest": max(words, key=len, default="")}


print("ready", file=sys.stderr)
for line in sys.stdin:
    print(json.dumps(measure(json.loads(line)["text"])), flush=True)
