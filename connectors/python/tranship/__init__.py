"""A tiered KV cache and tensor transport: the client, and the engine that moves bytes.

    cache = tranship.connect(identity=tranship.Identity("qwen3-0.6b", dtype="bf16"))
    hit = cache.lookup(keys)                       # the longest prefix that can be loaded
    done = cache.load(hit.keys, into=pages[ids])   # into tensors, no copy in between; one result a block
    cache.store(keys[len(hit):], pages[more])

    engine = tranship.Engine()                     # no daemon: memory to memory
    remote = engine.open(descriptor)               # of a peer's region.window().descriptor
    outcome = engine.read(engine.register(tensor), remote)

Memory is given as `Pages(tensors)[ids]` (a paged KV cache), as a list of buffers or tensors (buffer
protocol or DLPack), or by address as `Segments`. Calls that may wait let go of the interpreter lock.
"""

import json as _json

from ._aio import load_async, read_async, store_async, write_async
from ._native import (
    Block,
    Cache,
    Done,
    Engine,
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
    NoRoom,
    Outcome,
    Pages,
    Queue,
    Region,
    Remote,
    Room,
    Segments,
    Selected,
    Slice,
    Stored,
    StoreResult,
    Transfer,
    Window,
    __version__,
    connect,
)


def stats(cache: Cache) -> dict:
    """What the daemon has counted for the tenant."""
    return _json.loads(cache.stats_json())


__all__ = [
    "Block",
    "Cache",
    "Done",
    "Engine",
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
    "NoRoom",
    "Outcome",
    "Pages",
    "Queue",
    "Region",
    "Remote",
    "Room",
    "Segments",
    "Selected",
    "Slice",
    "StoreResult",
    "Stored",
    "Transfer",
    "Window",
    "__version__",
    "connect",
    "load_async",
    "read_async",
    "stats",
    "store_async",
    "write_async",
]
