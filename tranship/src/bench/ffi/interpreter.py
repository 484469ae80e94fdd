"""Calls the cache as a program in Python does, and tells how long it took: one line in, one line out."""

import json
import mmap
import sys
import time

import tranship

# Calls of a lookup in a row: what waking up costs is not the interpreter's.
CALLS = 16

told = json.loads(sys.stdin.readline())
identity = tranship.Identity(**told["identity"])
cache = tranship.connect(
    told["address"], identity=identity, tenant=told["tenant"], token=told["token"], name="tranship bench, in Python"
)
# In huge pages, as the memory that Rust and C copy into.
mapped, at = mmap.mmap(-1, max(told["memory"], 1)), 0
mapped.madvise(mmap.MADV_HUGEPAGE)
memory = memoryview(mapped)
print("ready", flush=True)
for line in sys.stdin:
    operation, size, text = line.split()
    data = bytes.fromhex(text)
    keys = [data[i : i + 16] for i in range(0, len(data), 16)]
    if operation == "lookup":
        found = len(cache.lookup(keys))
        begin = time.perf_counter_ns()
        for _ in range(CALLS):
            found = len(cache.lookup(keys))
        print(found, CALLS, time.perf_counter_ns() - begin, flush=True)
    else:
        size = int(size)
        at = at if at + size <= len(memory) else 0
        into = [memory[at : at + size]]
        at += size
        begin = time.perf_counter_ns()
        loaded = cache.load(keys, into)
        took = time.perf_counter_ns() - begin
        print(loaded.ready, 1, took, flush=True)
