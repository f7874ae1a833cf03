"""Those who work on the repositories, all at once and without knowing of each other. Each loops until the time is over.

What may happen to a run is decided here: exit 0 is what should be; "busy" is an answer; whoever was disturbed, or was slower than
the patience of the pruners (and so may have been declared dead), may fail; findings (exit 2) are never right, nor are errors out
of nowhere.
"""

import os
import random
import shutil
import threading

from ledger import DONE, REFUSED, UNKNOWN
from processes import brief
from trees import MadeTree, TableTree, difference, listing

KEEP_MAX = 4


class Failure(Exception):
    """Something that must not be."""


class Actors:
    """The threads and what they share; `soak` has runner, ledger, repositories, fence, options."""

    def __init__(self, soak):
        self.soak = soak
        self.typical = {}

    # --- running ---------------------------------------------------------------------------------------------------------

    def everpack(self, actor, verb, arguments, luck, danger):
        """Runs a verb and judges how it ended. The result is None if it did not do its work, for an acceptable reason."""
        typical = self.typical.get(verb, 1.0)
        ran = self.soak.runner.run(actor, arguments, luck, danger, typical)
        if not ran.disturbed:
            self.typical[verb] = 0.8 * typical + 0.2 * (ran.ended - ran.began)
        self.judge(verb, ran)
        if ran.code == 0:
            self.soak.runner.count(f"{verb} done")
        return ran

    def judge(self, verb, ran):
        excused = bool(ran.disturbed) or ran.ended - ran.began > self.soak.fence
        if ran.code in (0, 4):
            if ran.code == 4:
                self.soak.runner.count(f"{verb} busy")
            return
        if "panicked" in ran.err:
            raise Failure(f"{verb} panicked: {brief(ran)}")
        if ran.code == 2 or ran.code == 5:
            raise Failure(f"{verb} ended with {ran.code}: {brief(ran)}")
        # A signal before anybody listens for it ends a process at once.
        if ran.code < 0 and ran.disturbed in ("KILL", "TERM", "INT"):
            return
        if excused and ran.code in (1, 3):
            return
        if self.is_gone(verb, ran):
            return
        raise Failure(f"{verb} ended with {ran.code}, and nothing was done to it: {brief(ran)}")

    def is_gone(self, verb, ran):
        """A restore of, or an operation on, a backup that somebody forgets in the same moment: the caller knows."""
        return verb in ("restore", "hold", "unforget", "show") and ran.code == 1

    def loop(self, name, step, pause):
        """A thread that repeats `step` with pauses until the time is over or somebody failed."""
        luck = random.Random(f"{self.soak.options.seed} {name}")

        def body():
            while not self.soak.over.wait(luck.uniform(0, pause)):
                try:
                    step(name, luck)
                except Failure as failure:
                    self.soak.fail(f"{name}: {failure}")
                except Exception as error:  # noqa: BLE001: a bug of this program must not look like success
                    self.soak.fail(f"{name}: the soak test itself: {error!r}")

        thread = threading.Thread(target=body, name=name)
        thread.start()
        return thread

    def start(self):
        soak, has = self.soak, self.soak.commands
        threads = [self.writer(number) for number in range(soak.options.writers)]
        threads += [self.loop(f"restore-{n}", self.restore, 1.5) for n in range(2)]
        threads += [self.loop("scrub", self.scrub, 2), self.loop("look", self.look, 2)]
        if "prune" in has:
            threads += [self.loop(f"prune-{n}", self.prune, 1.5) for n in range(2)]
            threads.append(self.loop("prune-replica", self.prune_replica, 5))
        if "forget" in has:
            threads += [self.loop("forget", self.forget, 1), self.loop("forget-replica", self.forget_replica, 3)]
        if "hold" in has:
            threads.append(self.loop("hold", self.hold, 8))
        if "unforget" in has:
            threads.append(self.loop("unforget", self.unforget, 4))
        if "replicate" in has:
            threads += [self.loop(f"replicate-{n}", self.replicate, 2) for n in range(2)]
        return threads

    # --- writing ---------------------------------------------------------------------------------------------------------

    def writer(self, number):
        name, soak = f"writer-{number}", self.soak
        seed = f"{soak.options.seed} {name}"
        kibibytes = random.Random(seed).randint(1000, 4000)
        root = os.path.join(soak.scratch, "sources", name, "data")
        if number % 3 == 2 and soak.field_data:
            tree = TableTree(root, soak.options.seed * 1000 + number, 1500, soak.field_data)
        else:
            os.makedirs(os.path.dirname(root))
            tree = MadeTree(root, seed, kibibytes)
        return self.loop(name, lambda name, luck: self.backup(name, luck, tree, root), 1.0)

    def backup(self, name, luck, tree, root):
        if luck.random() < 0.8:
            tree.next_night()
        shape = listing(root)
        if luck.random() < 0.1:
            self.two_at_once(name, luck, root, shape)
        else:
            # Our own dead session of a far host would keep us out for an hour.
            self.one_backup(name, luck, root, self.soak.ledger.begin(name, shape), ["--takeover"] if luck.random() < 0.3 else [])

    def two_at_once(self, name, luck, root, shape):
        """The same lineage from two hosts: one is busy, or takes the other's session away."""
        first = self.soak.ledger.begin(name, shape)
        second = self.soak.ledger.begin(name, shape, beside=first)
        more = ["--takeover"] if luck.random() < 0.5 else []
        other_luck = random.Random(luck.random())
        failures = []

        def beside():
            try:
                self.one_backup(name, other_luck, root, second, more)
            except Failure as failure:
                failures.append(failure)

        thread = threading.Thread(target=beside)
        thread.start()
        try:
            self.one_backup(name, luck, root, first, [])
        finally:
            thread.join()
        if failures:
            raise failures[0]

    def one_backup(self, name, luck, root, attempt, more):
        soak = self.soak
        arguments = ["--json", "-r", soak.primary.url, "backup", root, "--lineage", name, "--tag", attempt.tag, *more]
        arguments += ["--fence-after", f"{soak.fence}s"]
        if luck.random() < 0.1:
            arguments.append("--force")
        ran = None
        try:
            ran = self.everpack(name, "backup", arguments, luck, 0.25)
        finally:
            state = UNKNOWN if ran is None or ran.code not in (0, 4) else DONE if ran.code == 0 else REFUSED
            backup = ran.json()["id"] if state == DONE else None
            soak.ledger.finish(attempt, state, backup)

    # --- reading ---------------------------------------------------------------------------------------------------------

    def listed(self, actor, luck, repository):
        """{id: attempt} of a repository; empty if it cannot be read just now."""
        ran = self.everpack(actor, "list", ["--json", "-r", repository.url, "list"], luck, 0)
        return self.soak.attempts_of(repository, ran.json()) if ran.code == 0 else {}

    def restore(self, name, luck):
        soak = self.soak
        repository = luck.choice(soak.readable())
        backups = self.listed(name, luck, repository)
        if not backups:
            return
        backup = luck.choice(sorted(backups))
        attempt = backups[backup]
        target = os.path.join(soak.scratch, "restored", name)
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        ran = self.everpack(name, "restore", ["--json", "-r", repository.url, "restore", backup, target], luck, 0.15)
        if ran.code == 0:
            differs = difference(attempt.listing, listing(target))
            if differs:
                raise Failure(f"restore of {backup} from {repository.name} differs from its source: " + "; ".join(differs[:5]))
        elif ran.code == 1 and not ran.disturbed and ran.ended - ran.began <= soak.fence:
            if repository.name not in attempt.forgettable:
                raise Failure(f"restore of {backup} from {repository.name}, which nobody forgot: {brief(ran)}")
            if not any(word in ran.err for word in ("there is none of that id", "forgotten", "the log does not know it")):
                raise Failure(f"restore of {backup}, which may have been forgotten, failed for another reason: {brief(ran)}")

    def scrub(self, name, luck):
        repository = luck.choice(self.soak.readable())
        seventh = luck.randint(1, 7)
        share = luck.choice([["--for", f"{luck.randint(1, 4)}s"], ["--part", f"{seventh}/7"], ["--sample", "30%"], []])
        self.everpack(name, "scrub", ["--json", "-r", repository.url, "scrub", *share], luck, 0.1)

    def look(self, name, luck):
        repository = luck.choice(self.soak.readable())
        verb = luck.choice(["check", "stats", "list"])
        self.everpack(name, verb, ["--json", "-r", repository.url, verb], luck, 0.05)
        if luck.random() < 0.1:
            self.soak.runner.lose_a_cache(luck)

    # --- upkeep ----------------------------------------------------------------------------------------------------------

    def prune(self, name, luck):
        self.prune_one(name, luck, self.soak.primary)

    def prune_replica(self, name, luck):
        replicas = [repository for repository in self.soak.readable() if repository is not self.soak.primary]
        if replicas:
            self.prune_one(name, luck, luck.choice(replicas))

    def prune_one(self, name, luck, repository):
        arguments = ["--json", "-r", repository.url, "prune", "--max-unused", luck.choice(["0", "0", "0%", "5%"])]
        arguments += luck.choice([[], [], ["--max-repack", "1M"], ["--for", "3s"]])
        # Patience decides who is called dead. Too little of it costs somebody a run, never anything stored.
        arguments += luck.choice([[], ["--fence-after", f"{self.soak.fence}s"], ["--wait", f"{luck.randint(1, 3)}s"]])
        if luck.random() < 0.1:
            arguments.append("--dry-run")
        ran = self.everpack(name, "prune", arguments, luck, 0.3)
        if ran.code == 0 and "--dry-run" not in arguments:
            self.soak.add_freed(ran.json())

    def forget(self, name, luck):
        self.forget_one(name, luck, self.soak.primary)

    def forget_replica(self, name, luck):
        replicas = [repository for repository in self.soak.readable() if repository is not self.soak.primary]
        if replicas:
            self.forget_one(name, luck, luck.choice(replicas))

    def forget_one(self, name, luck, repository):
        soak = self.soak
        lineage = f"writer-{luck.randrange(soak.options.writers)}" if luck.random() < 0.7 else None
        keep = luck.randint(1, KEEP_MAX)
        arguments = ["--json", "-r", repository.url, "forget", "--keep-last", str(keep)]
        arguments += luck.choice([[], [], ["--keep-daily", "2"], ["--keep-hourly", "1", "--keep-monthly", "1"]])
        arguments += ["--lineage", lineage] if lineage else []
        in_order = repository is soak.primary
        soak.ledger.may_forget(repository.name, lineage, keep, in_order)
        try:
            self.everpack(name, "forget", arguments, luck, 0.15)
        finally:
            soak.ledger.may_forget(repository.name, lineage, keep, in_order)

    def hold(self, name, luck):
        soak = self.soak
        backups = self.listed(name, luck, soak.primary)
        if not backups or soak.ledger.held(soak.primary.name) >= 10:
            return
        backup = luck.choice(sorted(backups))
        ran = self.everpack(name, "hold", ["-r", soak.primary.url, "hold", backup, "--until", "2199-01-01"], luck, 0)
        if ran.code == 0:
            soak.ledger.hold(soak.primary.name, backups[backup])

    def unforget(self, name, luck):
        """Whether it can be brought back depends on what was pruned; if it says so, it has to restore (the end checks that)."""
        forgotten = [a for a in list(self.soak.ledger.attempts.values()) if self.soak.primary.name in a.forgettable and a.id]
        if forgotten:
            backup = luck.choice(forgotten[-40:]).id
            self.everpack(name, "unforget", ["-r", self.soak.primary.url, "unforget", backup], luck, 0.1)

    def replicate(self, name, luck):
        soak = self.soak
        repository = luck.choice(soak.replicas)
        if luck.random() < 0.5:
            arguments = ["--json", "-r", soak.primary.url, "replicate", repository.url]
        elif repository.made:
            arguments = ["--json", "-r", repository.url, "replicate", "--from", soak.primary.url]
        else:
            return
        if luck.random() < 0.2:
            arguments += ["--shard", f"{luck.randint(1, 2)}/2"]
        if luck.random() < 0.3:
            arguments += ["--transfers", str(luck.randint(1, 4))]
        ran = self.everpack(name, "replicate", arguments, luck, 0.3)
        if ran.code == 0:
            repository.made = True
