"""Small trees that change from night to night, and what a tree looks like.

A tree is never kept twice: what is remembered of a night is a listing with a hash per file, which a restored tree must equal.
"""

import hashlib
import os
import random
import shutil
import stat
import subprocess

MIB = 1 << 20
# Contents that every lineage may draw from: the same bytes get stored by several sessions at once, and one lineage's dead chunk
# is another one's live one.
SHARED = 48


def content(seed, size):
    """The same bytes for the same arguments: one half does not compress, the other does."""
    source = random.Random(seed)
    noise = source.randbytes(max(size // 2, 1))
    words = source.randbytes(97) * (size // 97 + 1)
    return (noise + words)[:size]


class MadeTree:
    """Files of all sizes; every night some are added, changed, renamed and removed, and old contents come back."""

    def __init__(self, root, seed, kibibytes):
        self.root, self.seed = root, seed
        self.random = random.Random(f"tree {seed}")
        self.target = kibibytes << 10
        self.sizes = {}
        self.past = []
        self.made = 0
        os.makedirs(root)
        while sum(self.sizes.values()) < self.target:
            self._add()

    def next_night(self):
        for _ in range(self.random.randint(1, 4)):
            self._add()
        while sum(self.sizes.values()) > self.target and len(self.sizes) > 1:
            self._remove()
        for _ in range(self.random.randint(0, 2)):
            self._change()
        if self.random.random() < 0.3:
            self._rename()

    def _add(self):
        pick = self.random.random()
        if pick < 0.3:
            number = self.random.randrange(SHARED)
            recipe = (f"shared {number}", 20_000 + number * 9_000)
        elif pick < 0.5 and self.past:
            recipe = self.random.choice(self.past)
        else:
            size = int(2 ** self.random.uniform(4, 20.5))
            recipe = (f"{self.seed} {self.made}", size)
            self.past = (self.past + [recipe])[-200:]
        self.made += 1
        directory = os.path.join(self.root, f"dir-{self.random.randrange(6)}")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, f"file-{self.made}")
        with open(path, "wb") as out:
            out.write(content(*recipe))
        os.chmod(path, self.random.choice([0o600, 0o644, 0o755]))
        self.sizes[path] = recipe[1]

    def _pick(self):
        return self.random.choice(sorted(self.sizes))

    def _remove(self):
        path = self._pick()
        del self.sizes[path]
        os.remove(path)

    def _change(self):
        """Some bytes in the middle, as a database page would."""
        path = self._pick()
        size = self.sizes[path]
        with open(path, "r+b") as out:
            out.seek(self.random.randrange(size))
            out.write(self.random.randbytes(self.random.randint(1, 5000)))
            self.sizes[path] = os.fstat(out.fileno()).st_size

    def _rename(self):
        path = self._pick()
        self.made += 1
        renamed = os.path.join(os.path.dirname(path), f"file-{self.made}")
        os.rename(path, renamed)
        self.sizes[renamed] = self.sizes.pop(path)


class TableTree:
    """Objects like MatrixOne's, from the example program field-data; now and then with a night of merges."""

    def __init__(self, root, seed, kibibytes, program):
        self.parent, self.program = os.path.dirname(root), program
        self.seed, self.size = seed, f"{kibibytes}K"
        self.night = 0
        # The program writes PARENT/data.
        assert os.path.basename(root) == "data"
        os.makedirs(self.parent)
        self.next_night()

    def next_night(self):
        self.night += 1
        # Every twentieth night all of it is loaded anew, so that the data stays small.
        if self.night == 20:
            self.night, self.seed = 1, self.seed + 1000
            shutil.rmtree(os.path.join(self.parent, "data"))
        command = [self.program, self.parent, "--night", str(self.night), "--size", self.size, "--seed", str(self.seed)]
        command += ["--new", "15%", "--merge-night", str(self.night - self.night % 7)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def listing(root):
    """{path: (kind, mode, time of change, hash)} of all below a directory."""
    found = {}
    for directory, subdirectories, files in os.walk(root):
        for name in subdirectories + files:
            path = os.path.join(directory, name)
            about = os.lstat(path)
            key = os.path.relpath(path, root)
            if stat.S_ISDIR(about.st_mode):
                found[key] = ("directory", stat.S_IMODE(about.st_mode), about.st_mtime_ns, "")
            else:
                with open(path, "rb") as file:
                    digest = hashlib.blake2b(file.read(), digest_size=16).hexdigest()
                found[key] = ("file", stat.S_IMODE(about.st_mode), about.st_mtime_ns, digest)
    return found


def difference(expected, got):
    """What differs between two listings, in words; empty if nothing."""
    said = [f"missing: {path}" for path in sorted(expected.keys() - got.keys())]
    said += [f"not in the source: {path}" for path in sorted(got.keys() - expected.keys())]
    both = sorted(expected.keys() & got.keys())
    said += [f"{path}: {got[path]} instead of {expected[path]}" for path in both if expected[path] != got[path]]
    return said
