"""What the Python benchmarks here have in common: programs, the state of the page cache, what a run costs."""

import json
import os
import subprocess
import sys

import measure

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
MIB = 1 << 20


def die(text):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {text}")


def everpack_program():
    program = os.path.abspath(os.environ.get("EVERPACK_BIN", os.path.join(TOP, "target", "release", "everpack")))
    if not os.access(program, os.X_OK):
        die(f"{program} is not there; cargo build --release makes it, EVERPACK_BIN names another one")
    return program


def data_program():
    """The generator of made data; built if FIELD_DATA_BIN names none."""
    program = os.environ.get("FIELD_DATA_BIN")
    if program:
        return os.path.abspath(program)
    manifest = os.path.join(TOP, "Cargo.toml")
    subprocess.run(["cargo", "build", "--quiet", "--release", "--manifest-path", manifest, "--example", "field-data"], check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(TOP, "target"))
    return os.path.join(target, "release", "examples", "field-data")


def files(root):
    for directory, _, names in os.walk(root):
        for name in names:
            yield os.path.join(directory, name)


def bytes_of(root):
    return sum(os.lstat(path).st_size for path in files(root))


def warm(*roots):
    """The page cache in the same state for everyone: with all of what is about to be read."""
    os.sync()
    for root in roots:
        for path in files(root):
            with open(path, "rb") as file:
                while file.read(MIB):
                    pass


def cold():
    """The page cache in the same state for everyone: empty."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3")


class Bench:
    """A scratch directory, a log, and results as JSON lines."""

    def __init__(self, work, out):
        self.work = os.path.join(os.path.abspath(work), "run")
        if os.path.exists(self.work):
            die(f"{self.work} exists: left over from another run? remove it")
        os.makedirs(self.work)
        os.makedirs(out, exist_ok=True)
        self.log_path = os.path.join(out, "log.txt")
        self.log = open(self.log_path, "ab")
        self.results = open(os.path.join(out, "results.jsonl"), "w", buffering=1)
        self.rows = []

    def measure(self, command, **facts):
        """Runs and records a command; the file system is synced inside the measured time."""
        self.log.write(f"\n$ {' '.join(command)}\n".encode())
        self.log.flush()
        code, cost = measure.run(command, self.log, self.work)
        row = {**facts, "exit": code, **cost}
        self.rows.append(row)
        self.results.write(json.dumps(row) + "\n")
        if code != 0:
            die(f"{' '.join(command)}: exit {code}, see {self.log_path}")
        return row

    def run(self, command, environment=None):
        """Runs a command that is not measured; its standard output."""
        self.log.write(f"\n$ {' '.join(command)}\n".encode())
        self.log.flush()
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=self.log, env=environment, stdin=subprocess.DEVNULL, check=False)
        if ran.returncode != 0:
            die(f"{' '.join(command)}: exit {ran.returncode}, see {self.log_path}")
        return ran.stdout
