"""What was measured, as tables in Markdown. Not here: how it was measured."""

from statistics import median

from main import figures


def print_table(title, corner, columns, cell):
    """Of each column its name and what was measured of each server by name; `cell` makes a text of that, and of the first's."""
    print(f"\n{title}\n", flush=True)
    print(f"| {corner} | " + " | ".join(map(str, columns)) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in dict.fromkeys(name for measured in columns.values() for name in measured):
        cells = []
        for measured in columns.values():
            first = next(iter(measured.values()), None)
            cells.append(cell(measured[name], first) if name in measured else "")
        print(f"| {name} | " + " | ".join(cells) + " |")


def rate(rounds, _first):
    errors = sum(load.errors for load in rounds)
    return figures([load.rate for load in rounds]) + (f", {errors} errors" if errors else "")


def cpu(rounds, _first):
    return figures([load.cpu for load in rounds], 1)


def ratio(rounds, first):
    return figures([theirs.cpu / ours.cpu for theirs, ours in zip(rounds, first)], 2)


def cpu_and_ratio(rounds, first):
    errors = sum(load.errors for load in rounds)
    times = median(theirs.cpu / ours.cpu for theirs, ours in zip(rounds, first))
    return f"{cpu(rounds, first)}, {times:.2f} ×" + (f", {errors} errors" if errors else "")


def latency(rounds, _first):
    """In milliseconds the medians of p50, p99 and p99.9, and the longest of all."""
    shares = [median(each[share] for each in rounds) for share in ("p50", "p99", "p99.9")]
    lost = sum(each["lost"] for each in rounds)
    texts = [f"{value:.2f}" for value in (*shares, max(each["max"] for each in rounds))]
    return " / ".join(texts) + (f", {lost} lost" if lost else "")


def memory(rounds, _first):
    pss, dirty = zip(*rounds)
    return f"{median(pss):.2f}, {median(dirty):.2f}"
