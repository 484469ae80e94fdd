"""Mooncake store: objects that another process holds, got into memory of this one.

A master, a process of this file that lends the memory (`--holder`), and the client that measures.
"""

import argparse
import os
import socket
import subprocess
import sys
import time

import numpy as np
from mooncake.store import MooncakeDistributedStore

from measure import steps, tell

# A lease must outlive the measurement: with the default of seconds, keys lapse on a busy machine.
LEASE_MS = 600_000


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for some in sockets:
        some.bind(("127.0.0.1", 0))
    ports = [some.getsockname()[1] for some in sockets]
    for some in sockets:
        some.close()
    return ports


def until_listening(port, process, seconds=20):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the master ended with {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the master does not listen on port {port}")


def store(segment, buffer, master):
    side = MooncakeDistributedStore()
    code = side.setup("127.0.0.1", "P2PHANDSHAKE", segment, buffer, "tcp", "", master)
    if code != 0:
        raise RuntimeError(f"the store does not start: {code}")
    return side


def hold(args):
    # Objects are rounded up; a tenth of the bytes stays free so that nothing is evicted.
    side = store(args.working_set * 5 // 4 + (64 << 20), 16 << 20, args.master)
    print("holding", flush=True)  # `side` holds until the process ends.
    sys.stdin.read()
    os._exit(0)


def start(*command):
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, text=True
    )


def measure(args):
    rpc, metrics = free_ports(2)
    binary = os.path.join(os.path.dirname(sys.executable), "mooncake_master")
    master = subprocess.Popen(
        [
            binary,
            f"-rpc_port={rpc}",
            f"-metrics_port={metrics}",
            f"-default_kv_lease_ttl={LEASE_MS}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    holder = None
    try:
        until_listening(rpc, master)
        address = f"127.0.0.1:{rpc}"
        size = str(args.working_set)
        holder = start(
            sys.executable, __file__, "--holder", "--master", address, "--working-set", size
        )
        if not any(line.startswith("holding") for line in holder.stdout):
            raise RuntimeError("the holder ended")
        side = store(0, max(args.size * args.batch, 16 << 20), address)
        if args.op == "get":
            get(args, side)
        else:
            exist(args, side)
    finally:
        for process in (holder, master):
            if process is not None:
                process.kill()
                process.wait()
    sys.stdout.flush()
    os._exit(0)


def get(args, side):
    memory = np.empty(args.working_set, dtype=np.uint8)
    memory.fill(7)
    if side.register_buffer(memory.ctypes.data, memory.nbytes) != 0:
        raise RuntimeError("the store does not take the memory")
    count = args.working_set // args.size
    keys = [f"get-{i}" for i in range(count)]
    at = [memory.ctypes.data + i * args.size for i in range(count)]
    for key, address in zip(keys, at):
        if side.put_from(key, address, args.size) != 0:
            raise RuntimeError(f"{key} was not stored")
    first = 0

    def step():
        nonlocal first
        last = first + args.batch
        if args.batch == 1:
            got = [side.get_into(keys[first], at[first], args.size)]
        else:
            got = side.batch_get_into(keys[first:last], at[first:last], [args.size] * args.batch)
        if any(bytes_ != args.size for bytes_ in got):
            raise RuntimeError(f"a get ended as {got}")
        first = last if last + args.batch <= count else 0

    tell(steps(step, args.time, count // args.batch), args.batch, args.size)


def exist(args, side):
    memory = np.zeros(4096, dtype=np.uint8)
    side.register_buffer(memory.ctypes.data, memory.nbytes)
    count = args.keys - args.keys % args.batch
    keys = [f"exist-{i}" for i in range(count)]
    for some in range(0, count, 512):
        batch = keys[some : some + 512]
        codes = side.batch_put_from(batch, [memory.ctypes.data] * len(batch), [64] * len(batch))
        if any(code != 0 for code in codes):
            raise RuntimeError(f"keys were not stored: {codes}")
    first = 0

    def step():
        nonlocal first
        last = first + args.batch
        if args.batch == 1:
            there = [side.is_exist(keys[first])]
        else:
            there = side.batch_is_exist(keys[first:last])
        if any(one != 1 for one in there):
            raise RuntimeError(f"a key is missing: {there}")
        first = last if last + args.batch <= count else 0

    tell(steps(step, args.time, 4), args.batch, 0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--holder", action="store_true")
    parser.add_argument("--master", default="")
    parser.add_argument("--op", choices=["get", "exist"], default="get")
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--keys", type=int, default=32768)
    parser.add_argument("--time", type=float, default=1.0)
    parser.add_argument("--working-set", type=int, default=256 << 20)
    args = parser.parse_args()
    return hold(args) if args.holder else measure(args)


if __name__ == "__main__":
    sys.exit(main())
