#!/usr/bin/env python3
"""An object store 50 ms away: how much of the bandwidth of N parallel streams replicate and scrub reach.

    benches/field/far.py --size 512M --streams 8 --rtt 50 --link 64M --work /mnt/disk/far --out results

The store is a moto server (started here, or named by EVERPACK_TEST_S3_*) behind a TCP proxy of this program. The proxy is a
delay line behind a link: all connections share `--link` bytes a second in each direction, first come first served; every piece
of data is passed on half the round trip after it has left the link, in order; a new connection waits one round trip more, as
its handshake would. A connection has at most 1 MiB under way in each direction (so one alone does not fill the link). Nothing
is lost, and it is the same for everybody. `--link 0` leaves only the delay.

The yardstick for each row is N threads of this program that PUT or GET objects of 32 MiB of the same number of bytes
through the same proxy, on connections kept open. Server, proxy and programs share this machine's processors: the link must be
slow enough that they are not the limit, or the ratio says how much work verifying is.
"""

import argparse
import asyncio
import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

from shared import MIB, TOP, Bench, bytes_of, data_program, die, everpack_program, files

WINDOW = MIB
OBJECT = 32 * MIB


def arguments():
    parser = argparse.ArgumentParser(description="replicate and scrub against a store that is far away.")
    parser.add_argument("--size", default="512M", help="of the data (512M)")
    parser.add_argument("--streams", type=int, default=8, help="transfers of replicate, and threads of the yardstick (8)")
    parser.add_argument("--rtt", type=float, default=50, help="round trip in milliseconds (50)")
    parser.add_argument("--link", default="64M", help="bytes a second in each direction, all connections together; 0 for any (64M)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--operations", default="push scrub pull", help="some of: push scrub pull")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", default="./far-work")
    parser.add_argument("--out", default="./far-results")
    return parser.parse_args()


def size(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)


# --- the proxy ---------------------------------------------------------------------------------------------------------------


class Link:
    """One direction of the line: what was put on it first leaves it first."""

    def __init__(self, rate):
        self.rate, self.free = rate, 0.0

    def leaves(self, length):
        """When a piece that comes now has left the link."""
        now = time.monotonic()
        if self.rate:
            self.free = max(self.free, now) + length / self.rate
            return self.free
        return now


async def delay_line(reader, writer, link, delay, first):
    """Passes on what it reads, each piece `delay` seconds after it left the link; the first ones wait for `first` more."""
    queue, under_way, room = asyncio.Queue(), 0, asyncio.Event()
    not_before = time.monotonic() + first

    async def take():
        nonlocal under_way
        try:
            while data := await reader.read(64 << 10):
                queue.put_nowait((link.leaves(len(data)) + delay, data))
                under_way += len(data)
                while under_way > WINDOW:
                    room.clear()
                    await room.wait()
        except ConnectionError:
            pass
        queue.put_nowait((time.monotonic() + delay, b""))

    taker = asyncio.ensure_future(take())
    try:
        while True:
            due, data = await queue.get()
            wait = max(due, not_before) - time.monotonic()
            if wait > 0.0005:
                await asyncio.sleep(wait)
            if not data:
                break
            writer.write(data)
            await writer.drain()
            under_way -= len(data)
            room.set()
        writer.write_eof()
    except (ConnectionError, OSError):
        writer.close()
    finally:
        taker.cancel()


class Proxy:
    """Runs in a process of its own, so that it does not share this one's interpreter."""

    def __init__(self, host, port, rtt, link):
        command = [sys.executable, os.path.abspath(__file__), "--proxy", host, str(port), str(rtt), str(link)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def stop(self):
        self.process.terminate()
        self.process.wait()


async def serve(host, port, rtt, rate):
    delay, there, back = rtt / 2000, Link(rate), Link(rate)
    # Connections that are still open need no farewell.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    async def connected(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            delay_line(reader, far_writer, there, delay, 2 * delay),
            delay_line(far_reader, writer, back, delay, 0),
            return_exceptions=True,
        )
        writer.close()
        far_writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# --- the yardstick -----------------------------------------------------------------------------------------------------------


class Bucket:
    """The least of S3 that a yardstick needs: signed PUT and GET of whole objects."""

    def __init__(self, port, access, secret, bucket):
        self.port, self.access, self.secret, self.bucket = port, access, secret, bucket
        self.local = threading.local()

    def request(self, method, name, body=None):
        path = urllib.parse.quote(f"/{self.bucket}/{name}")
        headers = self.signed(method, path)
        for attempt in range(3):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                length = 0
                while piece := answer.read(MIB):
                    length += len(piece)
            except (ConnectionError, http.client.HTTPException):
                # The server closed a connection that it had kept open.
                self.local.connection = None
                continue
            if answer.status != 200:
                die(f"{method} {name}: {answer.status}")
            return length
        return die(f"{method} {name}: the connection breaks off")

    def signed(self, method, path):
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        headers = {"host": f"127.0.0.1:{self.port}", "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": stamp}
        names = ";".join(headers)
        canonical = "\n".join([method, path, "", *(f"{k}:{v}" for k, v in headers.items()), "", names, "UNSIGNED-PAYLOAD"])
        scope = f"{day}/us-east-1/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in (day, "us-east-1", "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        credential = f"Credential={self.access}/{scope}"
        headers["authorization"] = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"
        return headers

    def streams(self, method, prefix, total, count):
        """Seconds that `count` threads take for `total` bytes in objects of 32 MiB."""
        sizes = [OBJECT] * (total // OBJECT) + ([total % OBJECT] if total % OBJECT else [])
        bodies = {size: os.urandom(size) for size in set(sizes)} if method == "PUT" else {}
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            jobs = [pool.submit(self.request, method, f"{prefix}/{n}", bodies.get(size)) for n, size in enumerate(sizes)]
            moved = sum(job.result() for job in jobs)
        took = time.monotonic() - began
        if method == "GET" and moved != total:
            die(f"the yardstick read {moved} bytes instead of {total}")
        return took


# --- the run -----------------------------------------------------------------------------------------------------------------


class Far:
    def __init__(self, options, bench, port, server):
        self.options, self.bench = options, bench
        self.everpack = everpack_program()
        self.bucket = Bucket(port, server["ACCESS_KEY"], server["SECRET_KEY"], server["BUCKET"])
        self.prefix = f"far-{os.getpid()}-{int(time.time())}"
        self.local = os.path.join(bench.work, "local")
        self.rows = {}
        os.environ.update(
            EVERPACK_S3_ENDPOINT=f"http://127.0.0.1:{port}", EVERPACK_S3_ALLOW_HTTP="true", EVERPACK_CACHE=os.path.join(bench.work, "cache"),
            AWS_ACCESS_KEY_ID=server["ACCESS_KEY"], AWS_SECRET_ACCESS_KEY=server["SECRET_KEY"],
        )

    def url(self, name):
        return f"s3://{self.bucket.bucket}/{self.prefix}/{name}"

    def make(self):
        source = os.path.join(self.bench.work, "source")
        self.bench.run([data_program(), source, "--night", "1", "--size", self.options.size, "--seed", str(self.options.seed)])
        self.bench.run([self.everpack, "-r", self.local, "init"])
        self.bench.run([self.everpack, "-r", self.local, "backup", os.path.join(source, "data")])
        shutil.rmtree(source)
        self.packs = sum(os.path.getsize(path) for part in ("packs", "meta") for path in files(os.path.join(self.local, part)))

    def one(self, operation, number, command, method, prefix):
        """Ours and the yardstick, in alternating order."""
        count, took = self.options.streams, {}

        def ours():
            took["ours"] = self.bench.measure(command, op=operation, round=number)

        def theirs():
            took["streams"] = self.bucket.streams(method, f"{self.prefix}/{prefix}", self.packs, count)

        for run in (ours, theirs) if number % 2 else (theirs, ours):
            run()
        row = took["ours"]
        rates = [self.packs / MIB / row["wall"], self.packs / MIB / took["streams"]]
        self.rows.setdefault(operation, []).append((*rates, row["cpu_user"] + row["cpu_sys"], row["peak_anon"]))
        print(f"  {operation:6} {rates[0]:7.1f} MiB/s, {count} streams {rates[1]:7.1f} MiB/s, {rates[0] / rates[1]:.2f} ×", flush=True)

    def run(self):
        options = self.options
        operations = options.operations.split()
        self.make()
        transfers = ["--transfers", str(options.streams)]
        if "push" not in operations:
            # Something has to be there to be read.
            self.bench.run([self.everpack, "-r", self.url("copy-1"), "init"])
            self.refill()
        self.bucket.streams("PUT", f"{self.prefix}/yardstick", self.packs, options.streams)
        for number in range(1, options.rounds + 1):
            copy = self.url(f"copy-{number if 'push' in operations else 1}")
            if "push" in operations:
                command = [self.everpack, "-r", self.local, "replicate", copy, *transfers]
                self.one("push", number, command, "PUT", f"streams-{number}")
            if "scrub" in operations:
                self.one("scrub", number, [self.everpack, "-r", copy, "scrub"], "GET", "yardstick")
            if "pull" in operations:
                near = os.path.join(self.bench.work, "pulled")
                command = [self.everpack, "-r", copy, "replicate", near, *transfers]
                self.one("pull", number, command, "GET", "yardstick")
                self.bench.run([self.everpack, "-r", near, "check", "--read-data"])
                shutil.rmtree(near)
        self.table()

    def refill(self):
        """The same data, backed up straight into the bucket."""
        restored = os.path.join(self.bench.work, "restored")
        self.bench.run([self.everpack, "-r", self.local, "restore", "latest", restored])
        self.bench.run([self.everpack, "-r", self.url("copy-1"), "backup", restored])
        shutil.rmtree(restored)

    def table(self):
        options = self.options
        print(f"\n{self.packs / MIB:.0f} MiB of packs, {options.rtt:g} ms round trip, link {options.link}, {options.streams} streams, medians of {options.rounds} rounds, "
              f"{os.cpu_count()} cores shared with the server.\n")
        print("| operation | MiB/s | parallel streams, MiB/s | share | CPU s | peak anon MiB |")
        print("|---|---:|---:|---:|---:|---:|")
        names = {"push": "replicate into the bucket", "scrub": "scrub of the bucket", "pull": "replicate out of the bucket"}
        for operation, rows in self.rows.items():
            ours, streams, cpu, anon = (statistics.median(column) for column in zip(*rows))
            print(f"| {names[operation]} | {ours:.1f} | {streams:.1f} | {ours / streams:.2f} | {cpu:.2f} | {anon / MIB:.0f} |")


def start_server(directory):
    """The settings of a server, and whether it is ours to stop."""
    wanted = ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "BUCKET")
    if all(os.environ.get(f"EVERPACK_TEST_S3_{name}") for name in wanted):
        return {name: os.environ[f"EVERPACK_TEST_S3_{name}"] for name in wanted}, False
    moto = os.path.join(TOP, "tests", "support", "moto.sh")
    venv = os.path.join(TOP, "target", "moto", "venv")
    out = subprocess.run(["bash", moto, "start", directory, venv], stdout=subprocess.PIPE, text=True, check=True).stdout
    settings = dict(line.removeprefix("export EVERPACK_TEST_S3_").split("=", 1) for line in out.splitlines())
    return settings, True


def main():
    options = arguments()
    bench = Bench(options.work, options.out)
    moto = os.path.join(bench.work, "moto")
    proxy, ours = None, False
    try:
        server, ours = start_server(moto)
        address = urllib.parse.urlsplit(server["ENDPOINT"])
        proxy = Proxy(address.hostname, address.port, options.rtt, size(options.link))
        Far(options, bench, proxy.port, server).run()
    finally:
        if proxy:
            proxy.stop()
        if ours:
            subprocess.run(["bash", os.path.join(TOP, "tests", "support", "moto.sh"), "stop", moto], check=False)
        shutil.rmtree(bench.work, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--proxy"]:
        asyncio.run(serve(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])))
    else:
        main()
