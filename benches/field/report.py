#!/usr/bin/env python3
"""Reads the JSON lines of run.sh and prints markdown tables: medians, and ratios to cp and restic.

    report.py RESULTS.jsonl

A ratio is this tool's time over the other's: below 1 is faster. A tool that could not be run is named as absent, a command
that failed or restored something else is "failed", and neither is part of a median.
"""

import json
import statistics
import sys

OPERATIONS = [
    ("first", "First backup"),
    ("unchanged", "Backup, nothing changed"),
    ("nightly", "Nightly backup (all nights together)"),
    ("restore", "Restore of the newest"),
    ("check", "Check, reading all data (cp: cat)"),
]
MIB = 1 << 20


def median(values):
    values = list(values)
    return statistics.median(values) if values else None


def number(value, digits=2):
    return "–" if value is None else f"{value:.{digits}f}"


def ratio(a, b):
    return None if a is None or not b else a / b


def per_round(rows):
    """Nights of one round are added up, peaks are the greatest of them."""
    rounds = {}
    for row in rows:
        rounds.setdefault(row["round"], []).append(row)
    sums = ("wall", "cpu_user", "cpu_sys", "written", "source_bytes")
    whole = max((len(rows) for rows in rounds.values()), default=0)
    for rows in rounds.values():
        if len(rows) < whole:
            continue
        total = {key: sum(row[key] for row in rows) for key in sums}
        total.update({key: max(row[key] for row in rows) for key in ("peak_rss", "peak_anon")})
        yield total


def operation_table(tools, rows):
    good = {tool: [row for row in rows if row["tool"] == tool and row["good"]] for tool in tools}
    totals = {tool: list(per_round(good[tool])) for tool in tools}
    walls = {tool: median(total["wall"] for total in totals[tool]) for tool in tools}
    print("| tool | s | MiB/s | × cp | × restic | CPU s | CPU s/GB | peak RSS MiB | peak anon MiB | written MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for tool in tools:
        if walls[tool] is None:
            tried = any(row["tool"] == tool for row in rows)
            print(f"| {tool} | {'failed' if tried else 'absent'} | | | | | | | | |")
            continue
        mid = {key: median(total[key] for total in totals[tool]) for key in totals[tool][0]}
        cpu = median(total["cpu_user"] + total["cpu_sys"] for total in totals[tool])
        cells = [
            number(walls[tool]),
            number(ratio(mid["source_bytes"] / MIB, walls[tool]), 0),
            number(ratio(walls[tool], walls.get("cp"))),
            number(ratio(walls[tool], walls.get("restic"))),
            number(cpu),
            number(ratio(cpu, mid["source_bytes"] / 1e9)),
            number(mid["peak_rss"] / MIB, 0),
            number(mid["peak_anon"] / MIB, 0),
            number(mid["written"] / MIB, 0),
        ]
        print(f"| {tool} | {' | '.join(cells)} |")


def stored_table(tools, rows):
    backups = [row for row in rows if row["op"] in ("first", "nightly") and row["good"]]
    nights = sorted({row["night"] for row in backups})

    def stored(tool, night):
        return median(row["repo_bytes"] for row in backups if row["tool"] == tool and row["night"] == night)

    print("| tool | " + " | ".join(f"night {night}, MiB" for night in nights) + " | growth, MiB | × restic | growth × restic |")
    print("|---|" + "---:|" * (len(nights) + 3))

    def growth(tool):
        first, last = stored(tool, nights[0]), stored(tool, nights[-1])
        return None if first is None or last is None else last - first

    for tool in tools:
        sizes = [stored(tool, night) for night in nights]
        if sizes[-1] is None:
            continue
        cells = [number(None if size is None else size / MIB, 1) for size in sizes]
        grown = growth(tool)
        cells.append(number(None if grown is None else grown / MIB, 1))
        cells.append(number(ratio(sizes[-1], stored("restic", nights[-1]))))
        cells.append(number(ratio(grown, growth("restic"))))
        print(f"| {tool} | {' | '.join(cells)} |")


def main():
    with open(sys.argv[1]) as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    facts = next((row for row in rows if row.get("op") == "facts"), {})
    tools = facts.get("tools", "").split()
    rows = [row for row in rows if row.get("op") != "facts"]
    for row in rows:
        row["good"] = row["exit"] == 0 and row.get("restored", "same") == "same"
    print(f"{facts.get('what', '')}  \n{facts.get('how', '')}  \n{facts.get('versions', '')}\n")
    for op, title in OPERATIONS:
        chosen = [row for row in rows if row["op"] == op]
        if chosen:
            print(f"## {title}\n")
            operation_table(tools, chosen)
            print()
    if any(row["op"] == "first" and row["good"] for row in rows):
        print("## Stored bytes\n")
        stored_table(tools, rows)
        print()
    for row in rows:
        if not row["good"]:
            why = f"exit {row['exit']}" if row["exit"] else "restored something else"
            print(f"- failed: {row['tool']} {row['op']}, night {row['night']}, round {row['round']}: {why}")


if __name__ == "__main__":
    main()
