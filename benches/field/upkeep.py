#!/usr/bin/env python3
"""Upkeep beside restic and borg: check, scrub, copy, forget and prune, on the same nights, data and disk.

    benches/field/upkeep.py --size 1G --nights 8 --keep-last 2 --rounds 3 --work /mnt/disk/upkeep --out results

| here | everpack | restic | borg | cp |
|---|---|---|---|---|
| check | check | check | check | |
| scrub | scrub | check --read-data | check --verify-data | cat of everpack's packs |
| copy | replicate, to an empty target | copy, to a new repository with the same chunker | (has none) | cp -r of everpack's repository |
| copy of one more night | replicate | copy | | cp -r again |
| prune | forget --keep-last, prune | forget --keep-last --prune | prune --keep-last, compact | |

Each with its usual settings (both restic and everpack leave 5 % unused, borg 10 % of a segment). In each round everybody starts
with an empty repository, gets the same nights, and then takes turns operation by operation, starting with another one each time
and backwards in every second round. Durable for all: the file system is synced inside the measured time. Afterwards everybody
checks what is left, and everpack restores the newest night, which is compared with its source; a round in which that fails ends
the run.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess

from shared import MIB, Bench, bytes_of, cold, data_program, die, everpack_program, warm

OPERATIONS = ["check", "scrub", "copy", "copy of one more night", "prune"]


def arguments():
    parser = argparse.ArgumentParser(description="Check, scrub, copy and prune beside restic and borg.")
    parser.add_argument("--size", default="512M", help="of the first night (512M)")
    parser.add_argument("--new", default="5%", help="new bytes each night, and as many dropped (5%%)")
    parser.add_argument("--nights", type=int, default=8)
    parser.add_argument("--keep-last", type=int, default=2, help="nights that prune leaves (2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tools", default="everpack restic borg cp")
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each measurement (root)")
    parser.add_argument("--work", default="./upkeep-work")
    parser.add_argument("--out", default="./upkeep-results")
    return parser.parse_args()


def shell(*commands):
    """Several commands as one that is measured."""
    return ["sh", "-ec", "\n".join(" ".join(f"'{word}'" for word in command) for command in commands)]


class Upkeep:
    def __init__(self, options):
        self.options = options
        self.everpack, self.data = everpack_program(), data_program()
        self.tools = [tool for tool in options.tools.split() if tool in ("everpack", "cp") or shutil.which(tool)]
        self.absent = sorted(set(options.tools.split()) - set(self.tools))
        self.bench = Bench(options.work, options.out)
        self.source = os.path.join(self.bench.work, "source")
        self.turn = 0
        cache = os.path.join(self.bench.work, "cache")
        os.environ.update(
            XDG_CACHE_HOME=cache, EVERPACK_CACHE=os.path.join(cache, "everpack"), RESTIC_CACHE_DIR=os.path.join(cache, "restic"),
            RESTIC_PASSWORD="bench", RESTIC_FROM_PASSWORD="bench", BORG_BASE_DIR=os.path.join(cache, "borg"),
            BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes", BORG_RELOCATED_REPO_ACCESS_IS_OK="yes",
        )

    def repository(self, tool):
        return os.path.join(self.bench.work, f"repo-{tool}")

    def target(self, tool):
        return os.path.join(self.bench.work, f"copy-{tool}")

    def init(self, tool):
        repository = self.repository(tool)
        commands = {
            "everpack": [[self.everpack, "init", "-r", repository]],
            "restic": [["restic", "init", "-r", repository]],
            "borg": [["borg", "init", "--encryption", "none", repository]],
            "cp": [],
        }
        for command in commands[tool]:
            self.bench.run(command)

    def make_night(self, night):
        command = [self.data, self.source, "--night", str(night), "--size", self.options.size, "--new", self.options.new, "--steady"]
        command += ["--merge-night", str(self.options.nights // 2), "--seed", str(self.options.seed)]
        self.bench.run(command)
        os.sync()

    def back_up(self, tool, night):
        repository, data = self.repository(tool), os.path.join(self.source, "data")
        commands = {
            "everpack": [[self.everpack, "backup", "-r", repository, data, "--lineage", "upkeep"]],
            "restic": [["restic", "backup", "-r", repository, data]],
            "borg": [["borg", "create", "--compression", "zstd,1", f"{repository}::night-{night}", data]],
            "cp": [],
        }
        for command in commands[tool]:
            self.bench.run(command)

    def command(self, operation, tool):
        """What is measured; None where a tool has nothing of the kind."""
        repository, target, keep = self.repository(tool), self.target(tool), str(self.options.keep_last)
        ours = self.repository("everpack")
        prune = {
            "everpack": shell(
                [self.everpack, "forget", "-r", repository, "--keep-last", keep], [self.everpack, "prune", "-r", repository]
            ),
            "restic": ["restic", "forget", "-r", repository, "--keep-last", keep, "--prune"],
            "borg": shell(["borg", "prune", "--keep-last", keep, repository], ["borg", "compact", repository]),
        }
        restic_copy = ["restic", "copy", "-r", target, "--from-repo", repository]
        table = {
            "check": {
                "everpack": [self.everpack, "check", "-r", repository],
                "restic": ["restic", "check", "-r", repository],
                "borg": ["borg", "check", repository],
            },
            "scrub": {
                "everpack": [self.everpack, "scrub", "-r", repository],
                "restic": ["restic", "check", "-r", repository, "--read-data"],
                "borg": ["borg", "check", "--verify-data", repository],
                "cp": ["sh", "-c", 'cat "$0"/packs/*/* "$0"/meta/*/* >/dev/null', ours],
            },
            "copy": {
                "everpack": [self.everpack, "replicate", "-r", repository, target],
                "restic": restic_copy,
                "cp": ["cp", "-r", "--reflink=never", ours, target],
            },
            "copy of one more night": {
                "everpack": [self.everpack, "replicate", "-r", repository, target],
                "restic": restic_copy,
                "cp": ["cp", "-r", "--reflink=never", ours, target + "-again"],
            },
            "prune": prune,
        }
        return table[operation].get(tool)

    def in_turn(self, number):
        """Everybody, starting with another one each time, backwards in every second round."""
        tools = self.tools if number % 2 else self.tools[::-1]
        self.turn += 1
        shift = self.turn % len(tools)
        return tools[shift:] + tools[:shift]

    def operation(self, operation, number):
        for tool in self.in_turn(number):
            command = self.command(operation, tool)
            if not command:
                continue
            if (operation, tool) == ("copy", "restic"):
                # It wants the target made; everpack makes it while measured.
                self.bench.run(["restic", "init", "-r", self.target(tool), "--from-repo", self.repository(tool), "--copy-chunker-params"])
            # cp handles everpack's repository: it has none of its own.
            repository = self.repository("everpack" if tool == "cp" else tool)
            cold() if self.options.cold else warm(repository)
            before = bytes_of(repository)
            row = self.bench.measure(command, op=operation, tool=tool, round=number, bytes_before=before)
            after = command[-1] if tool == "cp" and operation != "scrub" else self.target(tool) if "copy" in operation else repository
            row["bytes_after"] = bytes_of(after)
            print(f"  {operation:24} {tool:9} {row['wall']:8.2f} s  {row['bytes_after'] / MIB:9.1f} MiB", flush=True)

    def round(self, number):
        options = self.options
        for tool in self.tools:
            self.init(tool)
        for night in range(1, options.nights):
            self.make_night(night)
            for tool in self.tools:
                self.back_up(tool, night)
        for operation in ("check", "scrub", "copy"):
            self.operation(operation, number)
        self.make_night(options.nights)
        for tool in self.tools:
            self.back_up(tool, options.nights)
        self.operation("copy of one more night", number)
        self.operation("prune", number)
        self.prove()
        for name in os.listdir(self.bench.work):
            shutil.rmtree(os.path.join(self.bench.work, name))

    def prove(self):
        """What is left is whole; a fast prune that loses something is none."""
        for tool in self.tools:
            command = self.command("scrub", tool)
            if command and tool != "cp":
                self.bench.run(command)
        if "everpack" not in self.tools:
            return
        target = os.path.join(self.bench.work, "restored")
        for repository in (self.repository("everpack"), self.target("everpack")):
            self.bench.run([self.everpack, "restore", "-r", repository, "latest", target])
            compared = subprocess.run(["diff", "-r", os.path.join(self.source, "data"), target], stdout=self.bench.log, check=False)
            if compared.returncode != 0:
                die(f"the newest night from {repository} differs from its source, see {self.bench.log_path}")
            shutil.rmtree(target)

    def table(self):
        options = self.options
        print(f"\n{options.nights} nights of {options.size}, {options.new} new and as much dropped each, one with merges; prune keeps "
              f"{options.keep_last}. Medians of {options.rounds} rounds, {os.cpu_count()} cores, page cache "
              f"{'cold' if options.cold else 'warm'}, synced. Absent: {' '.join(self.absent) or 'none'}.\n")
        print("| operation | tool | s | × restic | × cp | CPU s | peak anon MiB | MiB before | MiB after |")
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
        for operation in OPERATIONS:
            walls = {}
            for tool in self.tools:
                rows = [row for row in self.bench.rows if row["op"] == operation and row["tool"] == tool]
                if not rows:
                    continue
                middle = {key: statistics.median(row[key] for row in rows) for key in ("wall", "peak_anon", "bytes_before", "bytes_after")}
                middle["cpu"] = statistics.median(row["cpu_user"] + row["cpu_sys"] for row in rows)
                walls[tool] = middle
            for tool, middle in walls.items():
                against = [f"{middle['wall'] / walls[other]['wall']:.2f}" if other in walls else "–" for other in ("restic", "cp")]
                print(f"| {operation} | {tool} | {middle['wall']:.2f} | {against[0]} | {against[1]} | {middle['cpu']:.2f} | "
                      f"{middle['peak_anon'] / MIB:.0f} | {middle['bytes_before'] / MIB:.0f} | {middle['bytes_after'] / MIB:.0f} |")


def main():
    options = arguments()
    if options.cold and not os.access("/proc/sys/vm/drop_caches", os.W_OK):
        die("--cold may not write /proc/sys/vm/drop_caches")
    upkeep = Upkeep(options)
    try:
        for number in range(1, options.rounds + 1):
            print(f"round {number}", flush=True)
            upkeep.round(number)
        upkeep.table()
        with open(os.path.join(options.out, "rows.json"), "w") as out:
            json.dump(upkeep.bench.rows, out, indent=1)
    finally:
        shutil.rmtree(upkeep.bench.work, ignore_errors=True)


if __name__ == "__main__":
    main()
