"""NIXL over UCX: one-sided writes into the memory of another process.

Two processes of this file. The target registers memory and tells where it is on its standard
output; the initiator starts it, writes, and ends it by closing its standard input.
"""

import argparse
import base64
import json
import os
import subprocess
import sys

import numpy as np
from nixl_cu12._api import nixl_agent, nixl_agent_config

from measure import steps, tell


def pages(size):
    """Memory whose pages are all there."""
    memory = np.empty(size, dtype=np.uint8)
    memory.fill(7)
    return memory


def agent(name, progress_thread):
    config = nixl_agent_config(enable_prog_thread=progress_thread, backends=["UCX"])
    return nixl_agent(name, config)


def region(of, memory):
    return of.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")


def target(args):
    # Without a thread nobody would take the bytes that do not land by themselves.
    side = agent("target", True)
    memory = pages(args.working_set)
    registered = region(side, memory)
    here = {
        "metadata": base64.b64encode(side.get_agent_metadata()).decode(),
        "address": memory.ctypes.data,
    }
    print(json.dumps(here), flush=True)
    sys.stdin.read()
    side.deregister_memory(registered)
    return 0


def initiator(args):
    command = [sys.executable, __file__, "--target", "--working-set", str(args.working_set)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        there = json.loads(next(line for line in other.stdout if line.startswith("{")))
        side = agent("initiator", args.progress_thread)
        memory = pages(args.working_set)
        region(side, memory)
        name = side.add_remote_agent(base64.b64decode(there["metadata"]))
        side.make_connection(name)
        pieces = args.working_set // args.size
        ours = dlist(side, "", memory.ctypes.data, args.size, pieces)
        theirs = dlist(side, name, there["address"], args.size, pieces)
        # Prepared before anything is measured, as their documentation advises.
        batches = [
            side.make_prepped_xfer("WRITE", ours, at, theirs, at)
            for at in (
                list(range(first, first + args.batch))
                for first in range(0, min(pieces, args.batch * 256), args.batch)
            )
        ]
        turn = 0

        def step():
            nonlocal turn
            batch = batches[turn]
            turn = (turn + 1) % len(batches)
            state = side.transfer(batch)
            while state == "PROC":
                state = side.check_xfer_state(batch)
            if state != "DONE":
                raise RuntimeError(f"a transfer ended as {state}")

        took = steps(step, args.time, len(batches))
        tell(took, args.batch, args.size)
    finally:
        other.stdin.close()
        try:
            other.wait(10)
        except subprocess.TimeoutExpired:
            other.kill()
    # Interpreter shutdown would release handles in an order that the library does not stand.
    sys.stdout.flush()
    os._exit(0)


def dlist(side, name, base, size, count):
    return side.prep_xfer_dlist(name, [(base + i * size, size, 0) for i in range(count)], "DRAM")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", action="store_true")
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--time", type=float, default=1.0)
    parser.add_argument("--working-set", type=int, default=256 << 20)
    parser.add_argument("--progress-thread", action="store_true")
    args = parser.parse_args()
    return target(args) if args.target else initiator(args)


if __name__ == "__main__":
    sys.exit(main())
