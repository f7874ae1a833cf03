"""Runs everpack as people, crashes and bad luck do: on several hosts, under wrong clocks, killed, stopped, put to sleep.

A host is a cache directory of its own; a far one is a PID namespace as well, from where nobody can see whether a process of
another host still lives.
"""

import glob
import json
import os
import signal
import subprocess
import threading
import time

# A command that takes this long hangs.
PATIENCE = int(os.environ.get("SOAK_PATIENCE", "600"))


class Ran:
    """One finished process."""

    def __init__(self, code, out, err, disturbed, began, ended):
        self.code, self.out, self.err = code, out, err
        # "", "KILL", "TERM", "INT" or "STOP": what was done to it.
        self.disturbed, self.began, self.ended = disturbed, began, ended

    def json(self):
        return json.loads(self.out)


class Host:
    """Where a process runs."""

    def __init__(self, name, cache, far):
        self.name, self.cache, self.far = name, cache, far
        self.generation = 0

    def directory(self, below):
        return "none" if self.cache == "none" else os.path.join(below, f"{self.cache}-{self.generation}")


def far_command():
    """The command that runs another one in a PID namespace of its own; empty where that is not allowed."""
    for user in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *user, "--pid", "--fork", "--mount-proc", "--kill-child"]
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
        except OSError:
            return []
    return []


def clock_library():
    """libfaketime, if it is installed."""
    places = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + glob.glob("/usr/lib*/faketime/libfaketimeMT.so.1")
    return places[0] if places else None


class Runner:
    """Starts processes and keeps the diary: one JSON line for each in `events.jsonl`."""

    def __init__(self, binary, scratch, environment, clocks):
        self.binary, self.environment = binary, environment
        self.far = far_command()
        self.clocks = clock_library() if clocks else None
        self.caches = os.path.join(scratch, "caches")
        self.hosts = [Host("near", "near", False), Host("near-too", "near-too", False), Host("bare", "none", False)]
        if self.far:
            self.hosts += [Host("far", "far", True), Host("far-bare", "none", True)]
        self.diary = open(os.path.join(scratch, "events.jsonl"), "a", buffering=1)
        self.lock = threading.Lock()
        self.began = time.monotonic()
        self.counts = {}

    def note(self, **event):
        event["at"] = round(time.monotonic() - self.began, 3)
        with self.lock:
            self.diary.write(json.dumps(event) + "\n")

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + number

    def run(self, actor, arguments, luck=None, danger=0.0, typical=1.0, host=None):
        """Runs everpack with these arguments. `luck` decides by itself what happens to it; without, nothing does."""
        host = host or (luck.choice(self.hosts) if luck else self.hosts[0])
        environment = dict(self.environment)
        environment["EVERPACK_CACHE"] = host.directory(self.caches)
        years = 0
        if luck and self.clocks and luck.random() < 0.3:
            years = luck.choice([-10, 10])
            # Only the wall clock: waiting by the monotonic one must stay what it is, and files keep their times.
            environment.update(LD_PRELOAD=self.clocks, FAKETIME=f"{years:+d}y", FAKETIME_DONT_FAKE_MONOTONIC="1", NO_FAKE_STAT="1")
        fate, after = "", 0.0
        if luck and luck.random() < danger:
            fate = luck.choices(["KILL", "TERM", "INT", "STOP"], [6, 1, 1, 2])[0]
            after = luck.uniform(0, typical * 1.3)
        command = [*(self.far if host.far else []), self.binary, *arguments]
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        disturber = None
        gone = threading.Event()
        disturbed = []
        if fate:
            nap = luck.uniform(0.5, 6)
            disturber = threading.Thread(target=disturb, args=(process.pid, fate, after, nap, gone, disturbed))
            disturber.start()
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            signal_group(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += f"\nsoak: it hung: no end after {PATIENCE} s".encode()
            disturbed.clear()
        gone.set()
        if disturber:
            disturber.join()
        ran = Ran(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), "".join(disturbed), began, time.monotonic())
        self.count("processes")
        if ran.disturbed:
            self.count("kills" if ran.disturbed == "KILL" else "naps" if ran.disturbed == "STOP" else "signals")
        self.note(
            actor=actor, host=host.name, years=years, disturbed=ran.disturbed, exit=ran.code, seconds=round(ran.ended - began, 3),
            pid=process.pid, arguments=arguments, err=plain(ran.err)[-2000:] if ran.code else "",
        )
        return ran

    def commands(self):
        """Which verbs this binary has."""
        out = subprocess.run([self.binary, "--help"], capture_output=True, text=True, check=True).stdout
        after = out.split("Commands:", 1)[-1].split("\n\n", 1)[0]
        return {line.split()[0] for line in after.splitlines() if line.startswith("  ") and line[2:3].isalpha()}

    def lose_a_cache(self, luck):
        """No local state is needed: from now on a host has none. (Those who run go on with what they have open.)"""
        luck.choice(self.hosts).generation += 1
        self.count("caches lost")


def disturb(pid, fate, after, nap, gone, disturbed):
    if gone.wait(after):
        return
    if fate != "STOP":
        if signal_group(pid, getattr(signal, f"SIG{fate}")):
            disturbed.append(fate)
        return
    if signal_group(pid, signal.SIGSTOP):
        disturbed.append(fate)
        gone.wait(nap)
        signal_group(pid, signal.SIGCONT)


def signal_group(pid, number):
    try:
        os.killpg(pid, number)
        return True
    except ProcessLookupError:
        return False


def plain(err):
    """Standard error without the lines of progress."""
    return "\n".join(line for line in err.splitlines() if not line.startswith('{"event"'))


def brief(ran):
    """What a run said, short enough to be read: the first findings, or the end of what it printed."""
    try:
        report = ran.json()
        if "plans" in report:
            report["plans"] = [{key: value for key, value in plan.items() if key != "steps"} for plan in report["plans"]]
            return json.dumps(report)
        findings = [f"{finding.get('severity', '')} {finding['object']}: {finding['what']}" for finding in report["findings"]]
        return "\n".join(findings[:5])
    except (ValueError, KeyError, TypeError):
        return (ran.out[-1500:] + plain(ran.err)[-1500:]).strip()
