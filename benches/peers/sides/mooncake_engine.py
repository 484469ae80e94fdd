"""Mooncake transfer engine over tcp: writes into the memory of another process.

Two processes of this file, as in `nixl_ucx.py`; they find each other without a metadata service.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np
from mooncake.engine import TransferEngine

from measure import steps, tell


def pages(size):
    """Memory whose pages are all there."""
    memory = np.empty(size, dtype=np.uint8)
    memory.fill(7)
    return memory


def engine(memory):
    side = TransferEngine()
    if side.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
        raise RuntimeError("the engine does not start")
    if side.register_memory(memory.ctypes.data, memory.nbytes) != 0:
        raise RuntimeError("the engine does not take the memory")
    return side


def target(args):
    memory = pages(args.working_set)
    side = engine(memory)
    here = {"name": f"127.0.0.1:{side.get_rpc_port()}", "address": memory.ctypes.data}
    print(json.dumps(here), flush=True)
    sys.stdin.read()
    os._exit(0)


def initiator(args):
    command = [sys.executable, __file__, "--target", "--working-set", str(args.working_set)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        there = json.loads(next(line for line in other.stdout if line.startswith("{")))
        memory = pages(args.working_set)
        side = engine(memory)
        sizes = [args.size] * args.batch
        pieces = args.working_set // args.size
        batches = [
            (
                [memory.ctypes.data + i * args.size for i in batch],
                [there["address"] + i * args.size for i in batch],
            )
            for batch in (
                range(first, first + args.batch)
                for first in range(0, min(pieces, args.batch * 256), args.batch)
            )
        ]
        turn = 0

        def step():
            nonlocal turn
            ours, theirs = batches[turn]
            turn = (turn + 1) % len(batches)
            if side.batch_transfer_sync_write(there["name"], ours, theirs, sizes) != 0:
                raise RuntimeError("a transfer failed")

        tell(steps(step, args.time, len(batches)), args.batch, args.size)
    finally:
        other.stdin.close()
        try:
            other.wait(10)
        except subprocess.TimeoutExpired:
            other.kill()
    sys.stdout.flush()
    os._exit(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", action="store_true")
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--time", type=float, default=1.0)
    parser.add_argument("--working-set", type=int, default=256 << 20)
    args = parser.parse_args()
    return target(args) if args.target else initiator(args)


if __name__ == "__main__":
    sys.exit(main())
