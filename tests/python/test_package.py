"""The Python package against a real daemon."""

import asyncio
import gc
import multiprocessing
import os
import pickle
import select
import sys
import threading
import weakref

import numpy
import pytest
import tranship
from tranship import Error, Guard, Identity, Keys, LoadResult, Pages, Queue, Segments, StoreResult

SIZE = 4096 * 3 + 17


def blocks(count, first=1):
    return [numpy.full(SIZE, (first + i) % 251, "u1") for i in range(count)]


def empty(count):
    return [numpy.zeros(SIZE, "u1") for _ in range(count)]


def kind(call, *arguments, **named):
    with pytest.raises(Error) as raised:
        call(*arguments, **named)
    return raised.value.kind


# --- keys and identities ---


def test_keys_are_chained_sliced_and_pickled():
    hashes = [bytes([i]) * 32 for i in range(5)]
    keys = Keys.of_hashes(hashes, b"sha256")
    assert len(keys) == 5 and len(keys[0]) == 16
    assert keys[1:3] + keys[3:] == keys[1:]
    assert list(keys[::-1]) == list(reversed(list(keys)))
    assert keys[-1] == keys[4]
    assert pickle.loads(pickle.dumps(keys)) == keys
    assert Keys.of_hashes(hashes[2:], b"sha256", start=2, parent=keys[1]) == keys[2:]
    assert Keys.of_hashes(hashes, b"xxhash")[0] != keys[0]
    with pytest.raises(IndexError):
        keys[5]
    assert kind(Keys.of_hashes, hashes, parent=b"short") == "invalid"


def test_keys_of_tokens_cover_full_blocks_only(identity):
    keys = Keys.of_tokens(identity, list(range(11)))
    assert len(keys) == 2
    assert keys[:1] == Keys.of_tokens(identity, list(range(4)))


def test_identities_are_values():
    one = Identity("m", "r", "bf16", "hnd", layers=4, tp_size=2, tp_rank=1, salt="hush")
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(pickle.loads(pickle.dumps(one))) == hash(one)
    other = Identity("m", "r", "fp8", "hnd", layers=4, tp_size=2, tp_rank=1)
    assert one != other and one.id != other.id
    assert "dtype" in one.explain(other) and "hush" not in one.explain(other)
    assert "hush" not in repr(one)
    assert kind(Identity, "m" * 600) == "invalid"


# --- storing and loading ---


def test_blocks_come_back_as_they_were(cache):
    keys = Keys.of_names([f"b{i}" for i in range(40)])
    stored = cache.store(keys, blocks(40))
    assert stored.ok and stored.stored == 40 and stored[0] == StoreResult.STORED
    assert cache.store(keys, blocks(40))[7] == StoreResult.EXISTS
    into = empty(40)
    loaded = cache.load(keys, into)
    assert loaded.ok and loaded.ready == loaded.prefix == 40
    assert all((got == want).all() for got, want in zip(into, blocks(40)))


def test_a_lookup_tells_the_prefix_and_the_tiers(cache):
    keys = Keys.of_hashes([bytes([i]) for i in range(6)])
    cache.store(keys[:3], blocks(3))
    cache.store(keys[4:5], blocks(1))
    hit = cache.lookup(keys)
    assert len(hit) == 3 and hit.keys == keys[:3]
    assert hit.tiers == ["dram"] * 3 + [None, "dram", None]
    assert hit.present == [True, True, True, False, True, False]
    assert cache.load(keys, empty(6)).missing == [3, 5]
    assert cache.remove(keys) == 4 and len(cache.lookup(keys)) == 0


def test_every_kind_of_memory(cache):
    names = Keys.of_names(["array", "bytearray", "memoryview", "wide"])
    wide = numpy.arange(64, dtype="f4").reshape(4, 16)
    assert cache.store(names, [numpy.arange(9, dtype="u1"), bytearray(b"abc"), memoryview(b"defg"), wide]).ok
    array, ba, mv, back = numpy.zeros(9, "u1"), bytearray(3), bytearray(4), numpy.zeros_like(wide)
    assert cache.load(names, [array, ba, memoryview(mv), back]).ok
    assert bytes(array) == bytes(range(9)) and ba == b"abc" and mv == b"defg" and (back == wide).all()


class OnlyDlpack:
    """A tensor that speaks nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **named):
        return self.array.__dlpack__(**named)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack_is_not_copied_and_is_let_go_of(cache):
    keys = Keys.of_names(["x"])
    source = numpy.arange(SIZE, dtype="u2")
    assert cache.store(keys, [OnlyDlpack(source)]).ok
    into = numpy.zeros(SIZE, "u2")
    assert cache.load(keys, [OnlyDlpack(into)]).ok
    assert (into == source).all()
    gone = weakref.ref(into)
    del into
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("order", ["BHNC", "BNHC", "HBNC", "NBHC", "LBHNC", "BLHNC"])
def test_pages_of_any_layout(cache, order):
    layers, shape = 3, dict(B=5, H=2, N=4, C=8, L=3)
    stack = numpy.arange(numpy.prod([shape[d] for d in "LBHNC"]), dtype="u2").reshape(
        [shape[d] for d in "LBHNC"]
    )
    memory = order if "L" in order else "L" + order
    stack = numpy.ascontiguousarray(stack.transpose(["LBHNC".index(d) for d in memory]))
    by_layer = [stack.transpose([memory.index(d) for d in "LBHNC"])[i] for i in range(layers)]
    pages = Pages(by_layer)
    assert (pages.count, pages.layers, pages.block_bytes) == (5, 3, 3 * 2 * 4 * 8 * 2)
    keys = Keys.of_names([order + str(i) for i in range(3)])
    assert cache.store(keys, pages[[4, 0, 2]]).ok
    want = [layer[[4, 0, 2]].copy() for layer in by_layer]
    stack[:] = 0
    assert cache.load(keys, pages[[1, 3, 0]]).ok
    for layer, values in zip(by_layer, want):
        assert (layer[[1, 3, 0]] == values).all()
        assert (layer[[2, 4]] == 0).all(), "other pages are left alone"


def test_segments_by_address(cache):
    keys = Keys.of_names(["s"])
    array = numpy.arange(100, dtype="u1")
    at = array.ctypes.data
    assert cache.store(keys, Segments([[(at + 10, 5), (at + 50, 5)]], array)).ok
    into = bytearray(10)
    assert cache.load(keys, [into]).ok
    assert into == bytes([*range(10, 15), *range(50, 55)])


def test_a_lease_keeps_and_reads(cache):
    keys = Keys.of_names(["a", "b"])
    cache.store(keys[:1], blocks(1))
    with cache.lease(keys) as lease:
        assert lease.results == [LoadResult.READY, LoadResult.GONE]
        assert lease.read(0) == blocks(1)[0].tobytes()
        _, size = lease.view(0)
        assert size == SIZE
        assert kind(lease.read, 1) == "failed"
    lease.close()
    assert kind(lease.read, 0) == "closed"


def test_pins_and_statistics(cache):
    keys = Keys.of_names(["a", "b"])
    cache.store(keys, blocks(2))
    assert cache.pin(keys) == 2 and cache.unpin(keys) == 2
    assert cache.prefetch(keys) == 2
    assert isinstance(tranship.stats(cache), dict)
    assert 0 < cache.ping() < 5
    assert cache.is_mapped()


# --- identity: never somebody else's bytes ---


@pytest.mark.parametrize(
    "other",
    [
        Identity("tiny", "r2", "u8", "nhd", layers=2, block_tokens=4),
        Identity("tiny", "r1", "bf16", "nhd", layers=2, block_tokens=4),
        Identity("tiny", "r1", "u8", "nhd", layers=2, block_tokens=8),
        Identity("tiny", "r1", "u8", "nhd", layers=2, block_tokens=4, tp_size=2),
        Identity("tiny", "r1", "u8", "nhd", layers=2, block_tokens=4, salt="s"),
    ],
    ids=["weights", "dtype", "block size", "shards", "salt"],
)
def test_another_identity_is_a_miss(cache, other):
    keys = Keys.of_names(["a"])
    cache.store(keys, blocks(1))
    foreign = cache.with_identity(other)
    assert len(foreign.lookup(keys)) == 0
    into = empty(1)
    assert foreign.load(keys, into)[0] == LoadResult.GONE
    assert not into[0].any()


def test_another_length_is_a_miss(cache):
    keys = Keys.of_names(["a"])
    cache.store(keys, blocks(1))
    into = numpy.zeros(SIZE - 1, "u1")
    assert cache.load(keys, [into])[0] == LoadResult.FAILED
    assert not into.any()


# --- jobs ---


def test_jobs_end_on_the_descriptor(cache):
    keys = Keys.of_names([f"j{i}" for i in range(100)])
    with Queue(cache) as queue:
        job = queue.store(keys, blocks(100))
        done = queue.wait(job, 30)
        assert done.stored.ok and done.error is None and done.nbytes == 100 * SIZE
        assert queue.wait(job, 0) is None, "taken once"
        into = [empty(10) for _ in range(10)]
        jobs = {queue.load(keys[i * 10 : i * 10 + 10], into[i]): i for i in range(10)}
        while jobs:
            ready, _, _ = select.select([queue.fileno()], [], [], 30)
            assert ready, "no end was announced within 30 s"
            for done in queue.drain():
                i = jobs.pop(done.job)
                assert done.loaded.ok
                assert all((into[i][n] == blocks(100)[i * 10 + n]).all() for n in range(10))
        assert len(queue) == 0


def test_a_queue_keeps_the_memory_of_its_jobs(cache):
    keys = Keys.of_names(["k"])
    with Queue(cache) as queue:
        array = numpy.full(SIZE, 9, "u1")
        gone = weakref.ref(array)
        job = queue.store(keys, [array])
        del array
        assert gone() is not None
        assert queue.wait(job, 30).stored.ok
        gc.collect()
        assert gone() is None


def test_layers_are_stored_as_they_come(cache):
    layers = [numpy.full((4, SIZE), 10 + i, "u1") for i in range(3)]
    pages = Pages(layers)
    keys = Keys.of_names(["l0", "l1"])
    with Queue(cache) as queue:
        filling = queue.begin(keys, pages[[3, 1]])
        for layer in range(3):
            filling.layer(layer)
        assert kind(filling.layer, 3) == "invalid"
        done = queue.wait(filling.finish(), 30)
        assert done.stored.ok and done.nbytes == 2 * 3 * SIZE
        assert kind(filling.finish) == "closed"
        for layer in layers:
            layer[:] = 0
        assert cache.load(keys, pages[[0, 2]]).ok
        assert [layer[2][0] for layer in layers] == [10, 11, 12]
        # What is given up gives its room back: the key can be stored again.
        again = Keys.of_names(["l2"])
        del filling
        queue.begin(again, pages[[0]])
        gc.collect()
        while not queue.drain():
            assert select.select([queue.fileno()], [], [], 30)[0]
        assert cache.store(again, [numpy.zeros(5, "u1")]).ok


def test_awaited(cache):
    keys = Keys.of_names([f"a{i}" for i in range(8)])

    async def run():
        stored = await asyncio.gather(
            *(tranship.store_async(cache, keys[i : i + 1], blocks(1, i)) for i in range(8))
        )
        assert all(s.ok for s in stored)
        into = empty(8)
        assert (await tranship.load_async(cache, keys, into)).ok
        assert [block[0] for block in into] == list(range(8))

    asyncio.run(run())
    asyncio.run(run())


def test_threads_share_a_cache(cache):
    failures = []

    def work(number):
        try:
            for turn in range(20):
                keys = Keys.of_names([f"t{number}-{turn}"])
                assert cache.store(keys, blocks(1, number)).ok
                into = empty(1)
                assert cache.load(keys, into).ok and into[0][0] == number
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures


# --- bad input, and bad days ---


def test_nobody_at_the_address():
    assert kind(tranship.connect, "unix:///nonexistent/x.sock", timeout=1) == "unreachable"
    assert kind(tranship.connect, "bogus") == "invalid"
    assert kind(tranship.connect, "tcp://127.0.0.1:1", timeout=1) == "unreachable"
    assert kind(tranship.connect, "unix:///x", timeout=-1) == "invalid"


def test_memory_that_cannot_be_used(cache):
    keys = Keys.of_names(["a"])
    grid = numpy.zeros((8, 8), "u1")
    assert kind(cache.store, keys, [grid[:, ::2]]) == "invalid"
    assert kind(cache.store, keys, [grid, grid]) == "invalid"
    assert kind(cache.store, keys, [7]) == "invalid"
    with pytest.raises((BufferError, ValueError)):
        cache.load(keys, [b"read only"])
    assert kind(Pages, []) == "invalid"
    assert kind(Pages, [numpy.broadcast_to(grid[:1], (4, 8))], writable=False) == "invalid"
    assert kind(Pages([grid]).__getitem__, [8]) == "invalid"
    assert kind(cache.lookup, [b"short"]) == "invalid"
    assert kind(cache.lookup, ["text"]) == "invalid"


class OnADevice(OnlyDlpack):
    def __dlpack_device__(self):
        return (2, 0)


def test_device_memory_is_refused_with_a_reason(cache):
    with pytest.raises(Error, match="host memory") as raised:
        cache.store(Keys.of_names(["a"]), [OnADevice(numpy.zeros(4, "u1"))])
    assert raised.value.kind == "unsupported"


def test_closed_handles_say_so(cache):
    queue = Queue(cache)
    queue.close()
    queue.close()
    assert kind(queue.load, Keys.of_names(["a"]), empty(1)) == "closed"
    cache.close()
    cache.close()
    assert kind(cache.lookup, Keys.of_names(["a"])) == "closed"
    assert kind(Queue, cache) == "closed"


def test_a_daemon_that_is_gone_and_comes_back(daemon, cache):
    keys = Keys.of_names(["a"])
    guard = Guard(cache)
    assert guard.store(keys, blocks(1)).ok and guard.lookup(keys) == 1
    daemon.kill()
    assert kind(cache.lookup, keys) in ("disconnected", "unreachable")
    assert guard.lookup(keys) == 0 and guard.present(keys) == [False]
    assert guard.load(keys, empty(1)) is None and guard.store(keys, blocks(1)) is None
    assert sum(guard.counts) == 4
    with Queue(cache) as queue:
        assert queue.wait(queue.load(keys, empty(1)), 30).error.kind in ("disconnected", "unreachable")
    daemon.start()
    # The client connects again by itself, once its pause is over.
    for _ in range(1000):
        try:
            cache.ping()
            break
        except Error:
            threading.Event().wait(0.01)
    assert len(cache.lookup(keys)) == 0, "memory does not outlive a crash"
    assert cache.store(keys, blocks(1)).ok


def test_a_daemon_that_hangs_is_not_asked_again_at_once(daemon, identity):
    with tranship.connect(daemon.address, identity=identity, timeout=2) as cache:
        guard, keys = Guard(cache), Keys.of_names(["a"])
        daemon.pause()
        try:
            # The pause after a failure doubles: however slow this machine is, some call falls into one.
            for _ in range(6):
                assert guard.lookup(keys) == 0
                if guard.counts[1]:
                    break
            assert guard.counts[0] >= 1 and guard.counts[1] == 1
        finally:
            daemon.resume()


def in_child(cache, queue, lease, pipe):
    keys = Keys.of_names(["a"])
    kinds = []
    for call in (lambda: cache.lookup(keys), lambda: queue.drain(), lambda: lease.read(0), lambda: cache.address):
        try:
            call()
            kinds.append("worked")
        except Error as error:
            kinds.append(error.kind)
    del queue, lease
    cache.close()
    with tranship.connect(pipe[1]) as own:
        kinds.append(own.ping() > 0)
    pipe[0].send(kinds)


def test_a_forked_child_cannot_use_its_parents_handles(daemon, cache):
    keys = Keys.of_names(["a"])
    cache.store(keys, blocks(1))
    queue, lease = Queue(cache), cache.lease(keys)
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=in_child, args=(cache, queue, lease, (there, daemon.address))
    )
    child.start()
    assert here.poll(60)
    assert here.recv() == ["forked"] * 4 + [True]
    child.join(30)
    assert child.exitcode == 0
    assert len(cache.lookup(keys)) == 1, "the parent's still work"


def spawned(address, keys, pipe):
    with tranship.connect(address) as cache:
        pipe.send(len(cache.lookup(keys)))


def test_a_spawned_child_connects_by_itself(daemon):
    keys = Keys.of_names(["a"])
    with tranship.connect(daemon.address) as cache:
        cache.store(keys, blocks(1))
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(
            target=spawned, args=(daemon.address, keys, there)
        )
        child.start()
        assert here.poll(60)
        assert here.recv() == 1
        child.join(30)
        assert child.exitcode == 0


def test_the_stubs_name_everything():
    stub = os.path.join(os.path.dirname(tranship.__file__), "__init__.pyi")
    text = open(stub).read()
    for name in tranship.__all__:
        assert f" {name}" in text or name == "__version__", name
        value = getattr(tranship, name)
        if isinstance(value, type):
            for method in vars(value):
                if not method.startswith("_"):
                    assert f" {method}" in text, f"{name}.{method}"


def test_the_examples_of_the_book_run(daemon, monkeypatch):
    monkeypatch.setenv("TRANSHIP_ADDRESS", daemon.address)
    book = os.path.join(os.path.dirname(__file__), "../../docs/python.md")
    blocks = [part.split("```")[0] for part in open(book).read().split("```python\n")[1:]]
    assert blocks
    # One program, as a reader types it.
    names = {}
    for block in blocks:
        exec(compile(block, book, "exec"), names)
