#!/usr/bin/env python3
"""Runs one command and prints what it cost as one line of JSON.

    measure.py [--sync DIR] [--log FILE] [--fact KEY=VALUE]... -- COMMAND...

wall includes `sync -f DIR` when asked for. cpu_user, cpu_sys and written come from the rusage of the command and the
descendants it waited for. peak_rss and peak_anon are sums over the process tree, sampled every 20 ms from /proc, so short
peaks can be missed; peak_anon (RssAnon) leaves out mapped files. All sizes are bytes, all times seconds. The exit code is
the command's.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

INTERVAL = 0.02


def descendants(root):
    """The process and everything below it, through /proc/PID/task/TID/children."""
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as children:
                    queue.extend(int(child) for child in children.read().split())
        except OSError:
            pass
    return found


def memory(pids):
    """(resident, anonymous) bytes of some processes; those that are gone count nothing."""
    totals = {"VmRSS": 0, "RssAnon": 0}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as status:
                for line in status:
                    key, _, value = line.partition(":")
                    if key in totals:
                        totals[key] += int(value.split()[0]) * 1024
        except OSError:
            pass
    return totals["VmRSS"], totals["RssAnon"]


def run(command, log, sync):
    peak_rss = peak_anon = 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    while True:
        rss, anon = memory(descendants(child.pid))
        peak_rss, peak_anon = max(peak_rss, rss), max(peak_anon, anon)
        try:
            child.wait(INTERVAL)
            break
        except subprocess.TimeoutExpired:
            continue
    command_wall = time.monotonic() - start
    if sync:
        subprocess.run(["sync", "-f", sync], check=True)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return child.returncode, {
        "wall": round(wall, 4),
        "wall_before_sync": round(command_wall, 4),
        "cpu_user": round(after.ru_utime - before.ru_utime, 4),
        "cpu_sys": round(after.ru_stime - before.ru_stime, 4),
        "peak_rss": max(peak_rss, after.ru_maxrss * 1024),
        "peak_anon": peak_anon,
        "written": (after.ru_oublock - before.ru_oublock) * 512,
    }


def main():
    parser = argparse.ArgumentParser(description="Run a command and print what it cost as JSON.")
    parser.add_argument("--sync", metavar="DIR", help="sync this file system inside the timed region")
    parser.add_argument("--log", metavar="FILE", help="append the command's output here instead of standard error")
    parser.add_argument("--fact", action="append", default=[], metavar="KEY=VALUE", help="add this to the JSON")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command")
    facts = dict(fact.split("=", 1) for fact in arguments.fact)
    facts = {key: int(value) if value.isdigit() else value for key, value in facts.items()}
    if arguments.log:
        with open(arguments.log, "ab") as log:
            log.write(f"\n$ {' '.join(command)}\n".encode())
            log.flush()
            code, cost = run(command, log, arguments.sync)
    else:
        code, cost = run(command, sys.stderr, arguments.sync)
    print(json.dumps({**facts, "exit": code, **cost}), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
