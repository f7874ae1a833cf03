"""What was backed up, and what may be gone by now.

Every backup carries a tag of its own, so that what a repository lists can be traced to the attempt that made it, even if that
attempt was killed before it could tell an id. What a `forget` may take is worked out here from its policy alone, and generously
where kills leave doubt: a backup that is missing all the same was lost.
"""

import threading

RUNNING, DONE, UNKNOWN, REFUSED = "running", "done", "unknown", "refused"


class Attempt:
    """One run of `backup`."""

    def __init__(self, tag, lineage, order, listing):
        self.tag, self.lineage, self.order, self.listing = tag, lineage, order, listing
        self.state, self.id = RUNNING, None
        # Names of repositories where it is held, and where it may have been forgotten.
        self.held, self.forgettable = set(), set()


class Ledger:
    """All attempts; safe to use from every actor."""

    def __init__(self):
        self.lock = threading.Lock()
        self.attempts = {}
        self.orders = 0

    def begin(self, lineage, listing, beside=None):
        """`beside`: an attempt that runs at the same time, so that nobody can tell which of the two comes first."""
        with self.lock:
            self.orders += 1
            order = beside.order if beside else self.orders
            attempt = Attempt(f"a{len(self.attempts) + 1}", lineage, order, listing)
            self.attempts[attempt.tag] = attempt
            return attempt

    def finish(self, attempt, state, backup=None):
        with self.lock:
            attempt.state, attempt.id = state, backup

    def hold(self, repository, attempt):
        """`hold` said "done": either a forget came first, and then hold fails, or no forget takes it from now on."""
        with self.lock:
            attempt.held.add(repository)
            attempt.forgettable.discard(repository)

    def held(self, repository):
        with self.lock:
            return sum(repository in attempt.held for attempt in self.attempts.values())

    def may_forget(self, repository, lineage, keep_last, in_order):
        """Notes what a forget of this policy may take: to be told before it starts and again when it has ended.

        `in_order`: backups were committed there in the order of the attempts; a replica may get them in another one.
        """
        with self.lock:
            possible = [a for a in self.attempts.values() if a.state != REFUSED and lineage in (None, a.lineage)]
            for attempt in possible:
                later = sum(a.order >= attempt.order and a.lineage == attempt.lineage and a is not attempt for a in possible)
                if repository not in attempt.held and (later >= keep_last or not in_order):
                    attempt.forgettable.add(repository)

    def by_tag(self, tag):
        with self.lock:
            return self.attempts.get(tag)

    def lost(self, repository, listed):
        """Attempts that said "done" and are neither listed nor can have been forgotten."""
        with self.lock:
            return [
                attempt
                for attempt in self.attempts.values()
                if attempt.state == DONE and attempt.tag not in listed and repository not in attempt.forgettable
            ]
