#!/usr/bin/env python3
"""What years of nights do to a restore: backs made data up night after night, forgets and prunes as people do, and compares the
restore of the first night, when the repository was fresh, with that of the last one.

    benches/field/years.py --nights 400 --work /mnt/disk/years --out results

The data keep their size: each night adds `--new`, merges now and then, and deletes as much. Each night runs under its own date
(libfaketime, package faketime; the last night is today), so that `forget --keep-daily 30 --keep-monthly 12` means what it says.
The source changes in place; there is one copy of it at any time.

The third row is the yardstick: the last night's data alone in a repository of its own, so what differs from it is what history
costs. "packs touched" counts packs whose access time a restore changed (not on file systems mounted noatime); "read" is what the
restore says it read from the repository.
"""

import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import time

from shared import MIB, Bench, bytes_of, data_program, die, everpack_program, files, warm

DAY = 86400


def arguments():
    parser = argparse.ArgumentParser(description="Restore rates after years of nights.")
    parser.add_argument("--nights", type=int, default=400)
    parser.add_argument("--size", default="200M", help="of the data (200M)")
    parser.add_argument("--new", default="2%", help="new bytes each night (2%%)")
    parser.add_argument("--merge-every", type=int, default=7, help="nights between merges (7)")
    parser.add_argument("--merge", default="10%", help="bytes that a merge rewrites (10%%)")
    parser.add_argument("--prune-every", type=int, default=7, help="nights between prunes (7)")
    parser.add_argument("--keep", default="--keep-daily 30 --keep-monthly 12", help="what forget is told")
    parser.add_argument("--max-unused", default="5%", help="what prune is told (5%%)")
    parser.add_argument("--rounds", type=int, default=5, help="restores of which the median counts (5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", default="./years-work")
    parser.add_argument("--out", default="./years-results")
    return parser.parse_args()


def clock_library():
    found = glob.glob("/usr/lib/*/faketime/libfaketime*.so.1") or glob.glob("/usr/lib*/faketime/libfaketime*.so.1")
    # The one for programs with threads, if there are both.
    return next((name for name in found if "MT" in name), found[0] if found else None)


class Years:
    def __init__(self, options):
        self.options = options
        self.everpack, self.data = everpack_program(), data_program()
        self.clock = clock_library() or die("libfaketime is not there; install the package faketime")
        self.bench = Bench(options.work, options.out)
        self.source = os.path.join(self.bench.work, "source")
        self.repository = os.path.join(self.bench.work, "repository")
        self.today = int(time.time())
        os.environ["EVERPACK_CACHE"] = os.path.join(self.bench.work, "cache")

    def at_night(self, night):
        """The environment of a run in that night: only the wall clock is another one."""
        then = self.today - (self.options.nights - night) * DAY
        date = time.strftime("@%Y-%m-%d %H:%M:%S", time.gmtime(then))
        wrong = {"LD_PRELOAD": self.clock, "FAKETIME": date, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "TZ": "UTC"}
        return {**os.environ, **wrong}

    def everpack_at(self, night, *words):
        out = self.bench.run([self.everpack, "--json", "-r", self.repository, *words], self.at_night(night))
        return json.loads(out) if out.strip() else None

    def one_night(self, night):
        options = self.options
        command = [self.data, self.source, "--night", str(night), "--size", options.size, "--new", options.new, "--steady"]
        command += ["--merge-night", "0", "--merge-every", str(options.merge_every), "--merge", options.merge]
        self.bench.run([*command, "--seed", str(options.seed)])
        report = self.everpack_at(night, "backup", os.path.join(self.source, "data"), "--lineage", "years")
        self.everpack_at(night, "forget", *options.keep.split(), "--lineage", "years")
        if night % options.prune_every == 0:
            self.everpack_at(night, "prune", "--max-unused", options.max_unused)
        return report["id"]

    def restores(self, what, repository, backup):
        """A row of the table."""
        target = os.path.join(self.bench.work, "restored")
        rates, reads, touched = [], 0, 0
        command = [self.everpack, "-q", "-r", repository, "restore", backup, target]
        for turn in range(self.options.rounds + 1):
            warm(repository)
            if turn == 0:
                # Once for the counts, not for the clock.
                for pack in files(os.path.join(repository, "packs")):
                    os.utime(pack, ns=(0, os.stat(pack).st_mtime_ns))
                report = json.loads(self.bench.run([command[0], "--json", *command[2:]]))
                touched = sum(os.stat(pack).st_atime_ns > 0 for pack in files(os.path.join(repository, "packs")))
                reads = report["bytes_read"]
                self.compare(target, what)
            else:
                rates.append(bytes_of(self.source) / self.bench.measure(command, op="restore", what=what)["wall"])
            shutil.rmtree(target)
        packs = sum(1 for _ in files(os.path.join(repository, "packs")))
        return [what, bytes_of(self.source), bytes_of(repository), packs, touched, reads, statistics.median(rates)]

    def compare(self, target, what):
        differs = subprocess.run(["diff", "-r", os.path.join(self.source, "data"), target], stdout=self.bench.log, check=False)
        if differs.returncode != 0:
            die(f"the restore of {what} differs from its source, see {self.bench.log_path}")

    def run(self):
        nights = self.options.nights
        self.everpack_at(1, "init")
        rows, began = [], time.monotonic()
        for night in range(1, nights + 1):
            backup = self.one_night(night)
            if night == 1:
                rows.append(self.restores("night 1, when fresh", self.repository, backup))
            if night % 25 == 0:
                print(f"night {night}, {time.monotonic() - began:.0f} s, repository {bytes_of(self.repository) / MIB:.0f} MiB", flush=True)
        self.everpack_at(nights, "prune", "--max-unused", self.options.max_unused)
        listed = self.everpack_at(nights, "list")
        rows.append(self.restores(f"night {nights}", self.repository, backup))
        self.everpack_at(nights, "check", "--read-data")
        alone = os.path.join(self.bench.work, "alone")
        self.bench.run([self.everpack, "-q", "-r", alone, "init"])
        report = self.bench.run([self.everpack, "--json", "-r", alone, "backup", os.path.join(self.source, "data")])
        rows.append(self.restores(f"night {nights}, alone", alone, json.loads(report)["id"]))
        self.table(rows, len(listed))

    def table(self, rows, kept):
        options = self.options
        print(f"\n{options.nights} nights of {options.size}, {options.new} new each, a merge of {options.merge} every {options.merge_every}; "
              f"`forget {options.keep}` each night, `prune --max-unused {options.max_unused}` every {options.prune_every}; "
              f"{kept} backups at the end. Page cache warm, synced, median of {options.rounds}.\n")
        print("| restore of | data, MiB | repository, MiB | packs | touched | read, MiB | MiB/s | × fresh |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        fresh = rows[0][6]
        for what, size, stored, packs, touched, read, rate in rows:
            print(f"| {what} | {size / MIB:.0f} | {stored / MIB:.0f} | {packs} | {touched} | {read / MIB:.0f} | {rate / MIB:.0f} | {rate / fresh:.2f} |")


def main():
    years = Years(arguments())
    try:
        years.run()
    finally:
        shutil.rmtree(years.bench.work)


if __name__ == "__main__":
    main()
