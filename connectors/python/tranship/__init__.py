"""A tiered KV cache and tensor transport: the client.

    cache = tranship.connect(identity=tranship.Identity("qwen3-0.6b", dtype="bf16"))
    hit = cache.lookup(keys)                       # the longest prefix that can be loaded
    done = cache.load(hit.keys, into=pages[ids])   # into tensors, no copy in between; one result a block
    cache.store(keys[len(hit):], pages[more])

Memory is given as `Pages(tensors)[ids]` (a paged KV cache), as a list of buffers or tensors (buffer
protocol or DLPack), or by address as `Segments`. Calls that may wait let go of the interpreter lock.
"""

import json as _json

from ._aio import load_async, store_async
from ._native import (
    Cache,
    Done,
    Error,
    Events,
    Filling,
    Guard,
    Hit,
    Identity,
    Keys,
    Lease,
    Loaded,
    LoadResult,
    Memory,
    Pages,
    Queue,
    Room,
    Segments,
    Selected,
    Stored,
    StoreResult,
    __version__,
    connect,
)


def stats(cache: Cache) -> dict:
    """What the daemon has counted for the tenant."""
    return _json.loads(cache.stats_json())


__all__ = [
    "Cache",
    "Done",
    "Error",
    "Events",
    "Filling",
    "Guard",
    "Hit",
    "Identity",
    "Keys",
    "Lease",
    "LoadResult",
    "Loaded",
    "Memory",
    "Pages",
    "Queue",
    "Room",
    "Segments",
    "Selected",
    "StoreResult",
    "Stored",
    "__version__",
    "connect",
    "load_async",
    "stats",
    "store_async",
]
