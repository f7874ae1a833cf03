"""Everything at once on one repository and its replicas, with real processes that are killed; then the proof that nothing is lost.

Started by `tests/soak/run`, which see. The seed decides what is asked for and what is done to whom; how the processes interleave
is up to the machine, so a seed makes a failure likely again, not certain.
"""

import argparse
import concurrent.futures
import os
import random
import shutil
import subprocess
import sys
import threading
import time

from actors import Actors, Failure
from ledger import REFUSED, Ledger
from processes import Runner, brief
from trees import difference, listing

WANTED = {"init", "backup", "list", "restore", "check", "scrub", "stats", "forget", "unforget", "hold", "prune", "replicate"}


class Repository:
    def __init__(self, name, url):
        self.name, self.url = name, url
        # A replica comes to be with the first replication.
        self.made = False

    def objects(self):
        """Names of what is stored, of a repository on disk."""
        names = set()
        for part in ("packs", "meta", "index", "manifests"):
            for directory, _, files in os.walk(os.path.join(self.url, part)):
                names.update(os.path.join(directory, name) for name in files)
        return names


class Soak:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        environment = {"PATH": os.environ["PATH"], "HOME": scratch, "TZ": "UTC", "EVERPACK_MEMORY": "64M"}
        prefix = None
        if options.store == "s3":
            value = lambda name: os.environ[f"EVERPACK_TEST_S3_{name}"]  # noqa: E731
            environment.update(
                EVERPACK_S3_ENDPOINT=value("ENDPOINT"), EVERPACK_S3_ALLOW_HTTP="true",
                AWS_ACCESS_KEY_ID=value("ACCESS_KEY"), AWS_SECRET_ACCESS_KEY=value("SECRET_KEY"),
            )
            prefix = f"s3://{value('BUCKET')}/soak-{os.getpid()}-{int(time.time())}"
        self.runner = Runner(options.binary, scratch, environment, options.clocks)
        self.primary = Repository("primary", f"{prefix}/primary" if prefix else os.path.join(scratch, "primary"))
        self.replicas = [
            Repository("replica-disk", os.path.join(scratch, "replica-disk")),
            Repository("replica-two", f"{prefix}/replica" if prefix else os.path.join(scratch, "replica-two")),
        ]
        self.ledger = Ledger()
        self.over = threading.Event()
        self.failures = []
        # Silent for so long counts as dead. A moto server under load answers slowly.
        self.fence = 30 if options.store == "s3" else 10
        beside = os.path.join(os.path.dirname(options.binary), "examples", "field-data")
        self.field_data = os.environ.get("FIELD_DATA_BIN") or (beside if os.access(beside, os.X_OK) else None)
        self.commands = self.runner.commands()

    def say(self, text):
        print(f"soak: {text}", flush=True)
        self.runner.note(said=text)

    def fail(self, text):
        self.failures.append(text)
        self.say(f"FAILURE: {text}")
        self.over.set()

    def readable(self):
        return [self.primary] + [replica for replica in self.replicas if replica.made]

    def attempts_of(self, repository, backups):
        """{id: attempt} of what `list --json` printed."""
        found = {}
        for backup in backups:
            attempt = self.ledger.by_tag(backup["tags"][0])
            if attempt is None or attempt.lineage != backup["lineage_name"]:
                raise Failure(f"{repository.name} lists a backup that nobody made: {backup}")
            if attempt.state == REFUSED:
                raise Failure(f"{repository.name} lists a backup whose writer was told that it is busy: {backup}")
            found[backup["id"]] = attempt
        return found

    def add_freed(self, report):
        for name, value in report.items():
            if "bytes" in name and ("freed" in name or "deleted" in name) and isinstance(value, int):
                self.runner.count("bytes freed", value)

    # --- the run -------------------------------------------------------------------------------------------------------------

    def run(self):
        missing = WANTED - self.commands
        if missing:
            self.say(f"SKIPPED, not in this build: {' '.join(sorted(missing))}")
            if not self.options.allow_missing:
                raise Failure("commands are missing; --allow-missing goes on without them")
        for what, there in (("other PID namespaces", self.runner.far), ("made MatrixOne objects", self.field_data)):
            if not there:
                self.say(f"SKIPPED: {what} (not allowed or not installed here)")
        if self.options.clocks and not self.runner.clocks:
            self.say("SKIPPED: wrong clocks; install the package faketime")
        self.quiet(["-r", self.primary.url, "init"])
        threads = Actors(self).start()
        deadline = time.monotonic() + self.options.minutes * 60
        half = time.monotonic() + self.options.minutes * 30
        sabotaged = not self.options.sabotage
        # On a slow machine a short run goes on until everything was done once.
        while not self.over.wait(0.5) and time.monotonic() < deadline + (120 if self.idle() else 0):
            if not sabotaged and time.monotonic() >= half:
                sabotaged = self.sabotage()
        self.over.set()
        for thread in threads:
            thread.join()
        if not self.failures:
            self.finish()

    def sabotage(self):
        """Removes a pack, the largest: what this program is there to notice."""
        packs = [name for name in Repository("", self.sabotaged().url).objects() if "/packs/" in name and "#" not in name]
        if not packs:
            return False
        victim = max(packs, key=os.path.getsize)
        os.remove(victim)
        self.say(f"sabotage: removed {victim}")
        return True

    def sabotaged(self):
        return self.primary if self.options.store == "local" else self.replicas[0]

    # --- the end -------------------------------------------------------------------------------------------------------------

    def finish(self):
        """All is quiet: no process lives. From here on nothing may fail, and every exit code is 0."""
        begun = time.monotonic()
        self.say("quiet; who died is declared dead, what is dead is deleted")
        time.sleep(3)
        if "replicate" in self.commands:
            for replica in self.readable()[1:]:
                self.prune(replica)
            for replica in self.replicas:
                self.quiet(["-r", self.primary.url, "replicate", replica.url])
                replica.made = True
        for repository in self.readable():
            self.prune(repository)
        if self.options.sabotage:
            self.sabotage()
        for repository in self.readable():
            self.quiet(["-r", repository.url, "check", "--read-data"])
        lists = {repository.name: self.verify(repository) for repository in self.readable()}
        for replica in self.replicas if "replicate" in self.commands else []:
            lacking = [
                backup for backup, attempt in lists["primary"].items()
                if backup not in lists[replica.name] and replica.name not in attempt.forgettable
            ]
            if lacking:
                raise Failure(f"{replica.name} lacks {lacking}, which the last replication should have brought")
        for repository in self.readable():
            self.converge(repository)
            self.quiet(["-r", repository.url, "check", "--read-data"])
            if set(self.list(repository)) != set(lists[repository.name]):
                raise Failure(f"the last prunes of {repository.name} changed what is listed")
        self.vacuous()
        self.runner.count("seconds of proof", round(time.monotonic() - begun))

    def quiet(self, arguments):
        """Runs what has to succeed now."""
        ran = self.runner.run("end", ["--json", *arguments])
        if ran.code != 0:
            raise Failure(f"{' '.join(arguments)}: exit {ran.code}: {brief(ran)}")
        return ran

    def prune(self, repository):
        if "prune" in self.commands:
            self.add_freed(self.quiet(["-r", repository.url, "prune", "--max-unused", "0", "--fence-after", "1s"]).json())

    def converge(self, repository):
        """A prune with nothing to do does nothing."""
        if "prune" not in self.commands:
            return
        for _ in range(4):
            before = repository.objects()
            self.prune(repository)
            if repository.objects() == before:
                return
        raise Failure(f"four prunes in a row, and each found something in {repository.name}")

    def list(self, repository):
        return self.attempts_of(repository, self.quiet(["-r", repository.url, "list"]).json())

    def verify(self, repository):
        """Everything listed restores bit for bit, and everything that should be listed is."""
        backups = self.list(repository)
        if repository is self.primary:
            lost = self.ledger.lost(repository.name, {attempt.tag for attempt in backups.values()})
            if lost:
                raise Failure("done, never forgotten, and not listed: " + ", ".join(f"{a.id} of {a.lineage}" for a in lost))

        def one(numbered):
            number, (backup, attempt) = numbered
            target = os.path.join(self.scratch, "restored", f"{repository.name}-{number}")
            self.quiet(["-r", repository.url, "restore", backup, target])
            differs = difference(attempt.listing, listing(target))
            if differs:
                raise Failure(f"{backup} from {repository.name} differs from its source: " + "; ".join(differs[:5]))
            shutil.rmtree(target)

        os.makedirs(os.path.join(self.scratch, "restored"), exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            list(pool.map(one, enumerate(backups.items())))
        self.say(f"{repository.name}: {len(backups)} backups restored and compared")
        self.runner.count("proofs", len(backups))
        return backups

    def idle(self):
        verbs = {"backup", "restore", "scrub", "forget", "prune", "replicate"} & self.commands
        return [verb for verb in sorted(verbs) if not self.runner.counts.get(f"{verb} done")]

    def vacuous(self):
        """A run in which nothing happened proves nothing."""
        if self.idle():
            raise Failure(f"not once done: {' '.join(self.idle())}: they are always refused")
        if self.options.minutes >= 2 and "prune" in self.commands and not self.runner.counts.get("bytes freed"):
            raise Failure("prune never freed anything")


def parse():
    parser = argparse.ArgumentParser(prog="tests/soak/run", description="Everything at once on one repository, with kills.")
    parser.add_argument("--minutes", type=float, default=3, help="how long, without the proof at the end (3)")
    parser.add_argument("--store", choices=["local", "s3"], default="local", help="where the repository is (local)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of everything random")
    parser.add_argument("--writers", type=int, default=8, help="lineages that back up at once (8)")
    parser.add_argument("--clocks", action="store_true", help="some processes run ten years back or ahead (needs faketime)")
    parser.add_argument("--sabotage", action="store_true", help="remove a pack half-way: the run must fail")
    parser.add_argument("--keep", action="store_true", help="keep everything, also after success")
    parser.add_argument("--dir", default=None, help="where to work (target/soak); a directory is made below it")
    parser.add_argument("--allow-missing", action="store_true", help="go on if this build lacks a command")
    options = parser.parse_args()
    options.binary = os.path.abspath(os.environ["EVERPACK_BIN"])
    return options


def main():
    options = parse()
    below = os.path.abspath(options.dir or os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "soak"))
    scratch = os.path.join(below, f"{options.store}-{options.seed}-{os.getpid()}")
    os.makedirs(os.path.join(scratch, "caches"))
    os.makedirs(os.path.join(scratch, "sources"))
    soak = Soak(options, scratch)
    version = subprocess.run([options.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    soak.say(f"{version}, {options.store}, {options.minutes:g} minutes, seed {options.seed}, {options.writers} writers")
    try:
        soak.run()
    except Failure as failure:
        soak.fail(str(failure))
    except KeyboardInterrupt:
        soak.fail("interrupted")
    counts = soak.runner.counts
    soak.say(", ".join(f"{what} {number}" for what, number in sorted(counts.items())))
    if soak.failures:
        soak.say(f"FAILED with seed {options.seed}; everything is kept in {scratch}, the diary is events.jsonl")
        return 1
    if options.keep:
        soak.say(f"kept in {scratch}")
    else:
        shutil.rmtree(scratch)
    soak.say("passed: nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
