"""Redis on a unix socket, measured by its own client in C.

The reply ends in memory that the client library allocates; a copy into memory of an engine would
come on top. Needs no package of Python.
"""

import argparse
import csv
import io
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import line

SMALL = b"x" * 64


def ask(connection, replies, *parts):
    connection.sendall(
        b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
    )
    answer = replies.readline()
    if not answer.startswith((b"+", b":")):
        raise RuntimeError(f"redis answered {answer!r}")


def connect(path, server, seconds=20):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.poll() is not None:
            raise RuntimeError(f"redis-server ended with {server.returncode}")
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            time.sleep(0.02)
    raise RuntimeError("redis-server does not listen")


def benchmark(args, path, count, keys, command):
    """Requests a second and the median of a request, as redis-benchmark says."""
    said = subprocess.run(
        [args.benchmark, "-s", path, "-c", "1", "-P", str(args.batch), "-n", str(count)]
        + ["-r", str(keys), "--csv", command, "k:__rand_int__"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    return list(csv.DictReader(io.StringIO(said)))[-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--benchmark", required=True)
    parser.add_argument("--op", choices=["get", "exist"], default="get")
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--keys", type=int, default=32768)
    parser.add_argument("--time", type=float, default=1.0)
    parser.add_argument("--working-set", type=int, default=256 << 20)
    args = parser.parse_args()
    size = args.size if args.op == "get" else 0
    keys = args.working_set // args.size if args.op == "get" else args.keys
    value = b"x" * size if size else SMALL
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        path = str(Path(folder, "redis.sock"))
        server = subprocess.Popen(
            [args.server, "--port", "0", "--unixsocket", path, "--dir", folder]
            + ["--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        try:
            connection = connect(path, server)
            replies = connection.makefile("rb")
            for key in range(keys):
                ask(connection, replies, b"SET", b"k:%012d" % key, value)
            connection.close()
            command = "GET" if args.op == "get" else "EXISTS"
            # It counts requests, not time: a short run tells how many the time holds.
            trial = benchmark(args, path, max(keys, 1000), keys, command)
            count = max(int(float(trial["rps"]) * args.time), args.batch)
            figures = benchmark(args, path, count, keys, command)
        finally:
            server.kill()
            server.wait()
    rps = float(figures["rps"])
    line(
        gb_per_s=rps * size / 1e9,
        units_per_s=rps,
        p50_us=float(figures["p50_latency_ms"]) * 1e3,
        p99_us=float(figures["p99_latency_ms"]) * 1e3,
        n=count,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
