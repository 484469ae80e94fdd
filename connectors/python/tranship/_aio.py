"""Loads, stores and transfers that are awaited: the event loop watches a descriptor, of a queue or of a transfer."""

import asyncio
import weakref

from ._native import Queue

_watches: "weakref.WeakKeyDictionary" = weakref.WeakKeyDictionary()


class _Watch:
    """One cache's jobs in one event loop."""

    def __init__(self, cache, loop):
        self.queue = Queue(cache)
        self.waiting = {}
        loop.add_reader(self.queue.fileno(), self.drain)

    def drain(self):
        for done in self.queue.drain():
            future = self.waiting.pop(done.job, None)
            if future is None or future.done():
                continue
            if done.error is not None:
                future.set_exception(done.error)
            else:
                future.set_result(done)

    async def job(self, number):
        future = asyncio.get_running_loop().create_future()
        # The job may have ended already; its end is drained by this loop, and so after this line.
        self.waiting[number] = future
        return await future


def _watch(cache):
    loop = asyncio.get_running_loop()
    by_cache = _watches.setdefault(loop, {})
    watch = by_cache.get(cache)
    if watch is None:
        watch = by_cache[cache] = _Watch(cache, loop)
    return watch


async def load_async(cache, keys, into, *, wait=0.0):
    """`cache.load`, awaited."""
    watch = _watch(cache)
    return (await watch.job(watch.queue.load(keys, into, wait=wait))).loaded


async def store_async(cache, keys, pages, *, ttl=None):
    """`cache.store`, awaited."""
    watch = _watch(cache)
    return (await watch.job(watch.queue.store(keys, pages, ttl=ttl))).stored


async def _ended(transfer):
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    descriptor = transfer.fileno()
    loop.add_reader(descriptor, lambda: future.done() or future.set_result(None))
    try:
        await future
    except asyncio.CancelledError:
        transfer.cancel()
        raise
    finally:
        loop.remove_reader(descriptor)
    return transfer.outcome


async def read_async(engine, into, remote, *, at=0, timeout=None):
    """`engine.read`, awaited; cancelled with the task."""
    return await _ended(engine.submit_read(into, remote, at=at, timeout=timeout))


async def write_async(engine, from_, remote, *, at=0, timeout=None):
    """`engine.write`, awaited; cancelled with the task."""
    return await _ended(engine.submit_write(from_, remote, at=at, timeout=timeout))
