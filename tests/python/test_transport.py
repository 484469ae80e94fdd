"""Engines of the package against each other, in one process and in two."""

import asyncio
import gc
import multiprocessing
import os
import socket
import threading
import weakref

import numpy
import pytest
import tranship
from tranship import Engine, Error

SIZE = (1 << 20) + 17


def pattern(first=1, size=SIZE):
    return ((numpy.arange(size) * 7 + first) % 251).astype("u1")


def error(call, *arguments, **named):
    with pytest.raises(Error) as raised:
        call(*arguments, **named)
    return raised.value


@pytest.fixture(params=["shm", "tcp", "shm,tcp"])
def pair(request):
    with Engine(request.param) as one, Engine(request.param) as other:
        yield one, other


def filled(engine, first=1, size=SIZE):
    region = engine.alloc(size)
    numpy.frombuffer(region.buffer, "u1")[:] = pattern(first, size)
    return region


def test_bytes_are_read_and_written_where_they_belong(pair):
    one, other = pair
    source = filled(one)
    with source.window(access="read,write") as window:
        remote = other.open(window.descriptor)
        assert remote.nbytes == source.nbytes == SIZE
        target = numpy.zeros(SIZE, "u1")
        into = other.register(target)
        outcome = other.read(into, remote)
        assert outcome.done and outcome.end == "done" and outcome.reason is None and outcome.pages_are_free
        assert (target == pattern()).all()
        assert other.read(into.slice(10, 20), remote, at=100).done
        assert (target[10:20] == pattern()[100:110]).all() and (target[20:] == pattern()[20:]).all()
        target[:] = pattern(9)
        assert other.write(into.slice(5, 1005), remote, at=7).done
        seen = numpy.frombuffer(source.buffer, "u1")
        assert (seen[7:1007] == pattern(9)[5:1005]).all() and (seen[1007:] == pattern()[1007:]).all()


def test_a_part_of_a_region_is_all_that_its_window_opens(pair):
    one, other = pair
    window = filled(one).window(100, 200)
    remote = other.open(window.descriptor)
    into = other.alloc(200)
    assert remote.nbytes == 100
    assert other.read(into.slice(0, 100), remote).done
    assert bytes(into.buffer[:100]) == pattern()[100:200].tobytes()
    assert error(other.read, into, remote).kind == "invalid"
    assert error(other.read, into.slice(0, 50), remote, at=51).kind == "invalid"
    denied = other.write(into.slice(0, 100), remote)
    assert denied.end == "rejected" and denied.reason == "the window does not grant this operation"


def test_a_revoked_window_is_closed(pair):
    one, other = pair
    region = filled(one)
    window = region.window()
    descriptor = window.descriptor
    remote, into = other.open(descriptor), other.alloc(SIZE)
    assert other.read(into, remote).done
    window.revoke()
    window.revoke()
    refused = other.read(into, remote)
    assert not refused.done and refused.reason == "the window was revoked"
    assert error(lambda: window.descriptor).kind == "closed"
    again = region.window()
    assert other.read(into, other.open(again.descriptor)).done
    assert not other.read(into, other.open(descriptor)).done, "the old right does not come back"


def test_a_window_that_is_let_go_of_is_revoked(pair):
    one, other = pair
    region, into = filled(one), other.alloc(SIZE)
    window = region.window()
    remote = other.open(window.descriptor)
    assert other.read(into, remote).done
    del window
    gc.collect()
    assert other.read(into, remote).reason == "the window was revoked"


def test_exported_bytes_outlive_their_region():
    with Engine("shm") as engine:
        region = filled(engine)
        view, array = region.buffer, numpy.from_dlpack(region)
        assert array.dtype == numpy.uint8 and array.shape == (SIZE,)
        view[3] = 99
        assert array[3] == 99, "they are the same bytes"
        region.close()
        region.close()
        assert error(lambda: region.buffer).kind == "closed"
        assert error(region.window).kind == "closed"
        del region
    gc.collect()
    assert view[3] == 99 and (array[4:] == pattern()[4:]).all()
    with pytest.raises(TypeError):
        Engine("shm").register(b"read-only", writable=False).buffer[0] = 1


def test_registered_memory_is_held_and_let_go_of():
    with Engine("shm") as engine:
        array = pattern()
        gone = weakref.ref(array)
        region = engine.register(array)
        del array
        gc.collect()
        assert gone() is not None and bytes(region.buffer) == pattern().tobytes()
        region.close()
        del region
        for _ in range(1000):
            # The engine's thread lets go of it.
            if gone() is None:
                break
            engine.alloc(1).close()
        assert gone() is None


def test_what_cannot_be_used_is_refused_with_the_reason(pair):
    one, other = pair
    window = filled(one).window(access="read,write")
    remote = other.open(window.descriptor)
    assert "register" in str(error(other.read, numpy.zeros(SIZE, "u1"), remote))
    assert "writable=False" in str(error(other.register(bytes(SIZE), writable=False).window, access="write"))
    constant = other.register(bytes(SIZE), writable=False)
    assert error(other.read, constant, remote).kind == "invalid"
    assert not numpy.from_dlpack(constant).flags.writeable
    with pytest.raises(BufferError, match="read-only"):
        constant.__dlpack__()
    assert error(other.register, bytes(SIZE)).kind == "invalid"
    assert error(other.register, numpy.zeros((9, 9))[:, ::2]).kind == "invalid"
    assert error(other.register, object()).kind == "invalid"
    assert error(other.alloc(9).slice, 5, 10).kind == "invalid"
    assert error(other.alloc(9).window, 5, 10).kind == "invalid"
    assert error(other.alloc(9).window, access="map").kind == "invalid"
    assert error(other.open, b"{}").kind == "invalid"
    assert error(other.open, b"x" * (1 << 20)).kind == "invalid"
    assert error(other.read, other.alloc(9), remote, timeout=-1).kind == "invalid"
    assert one.read(other.alloc(9), remote).reason == "a region or window of another engine of this process"
    assert error(Engine, "pigeon").kind == "unsupported"
    assert error(Engine, "shm,shm").kind == "failed"
    with pytest.raises(OverflowError):
        other.read(other.alloc(9), remote, at=-1)


def test_a_closed_engine_says_so():
    engine = Engine("shm")
    region = engine.alloc(16)
    remote = engine.open(region.window().descriptor)
    engine.close()
    engine.close()
    assert error(engine.alloc, 9).kind == "closed"
    assert error(engine.read, region, remote).kind == "closed"
    assert error(region.window).kind == "closed"
    region.close()


def silent():
    """A socket that takes connections and says nothing."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def to_nobody(engine):
    """A window whose owner does not answer."""
    with Engine("tcp") as owner:
        descriptor = owner.alloc(SIZE).window().descriptor
        port = owner.addresses[0].rsplit(":", 1)[1]
    listener = silent()
    other = str(listener.getsockname()[1])
    return engine.open(descriptor.replace(port.encode(), other.encode())), listener


def test_a_transfer_is_waited_for_polled_and_cancelled():
    with Engine("tcp") as engine:
        remote, listener = to_nobody(engine)
        with listener:
            transfer = engine.submit_read(engine.alloc(SIZE), remote, timeout=60)
            assert transfer.wait(0.05) is None and not transfer.done() and transfer.outcome is None
            transfer.cancel()
            outcome = transfer.wait(30)
            assert outcome.reason == "cancelled by the caller" and transfer.done() and transfer.fenced()
            assert transfer.wait() == transfer.outcome == outcome
            assert not engine.read(engine.alloc(SIZE), remote, timeout=0.05).done


def test_waiting_leaves_the_interpreter_to_others():
    with Engine("tcp") as engine:
        remote, listener = to_nobody(engine)
        with listener:
            transfer = engine.submit_read(engine.alloc(SIZE), remote, timeout=60)
            ends = []
            waiting = [
                threading.Thread(target=lambda: ends.append(transfer.wait(60))),
                threading.Thread(target=lambda: ends.append(transfer.wait())),
            ]
            for thread in waiting:
                thread.start()
            # This thread goes on; it is what ends their waits.
            transfer.cancel()
            for thread in waiting:
                thread.join(30)
            assert [end.reason for end in ends] == ["cancelled by the caller"] * 2


def test_many_transfers_at_once(pair):
    one, other = pair
    window = filled(one).window()
    remote = other.open(window.descriptor)
    into = other.alloc(SIZE)
    step = 4096
    transfers = [
        other.submit_read(into.slice(at, min(at + step, SIZE)), remote, at=at) for at in range(0, SIZE, step)
    ]
    assert all(transfer.wait(30).done for transfer in transfers)
    assert bytes(into.buffer) == pattern().tobytes()


def test_transfers_are_awaited(pair):
    one, other = pair
    region = filled(one)
    window = region.window(access="read,write")
    remote = other.open(window.descriptor)

    async def several():
        regions = [other.alloc(SIZE) for _ in range(8)]
        ends = await asyncio.gather(*(tranship.read_async(other, into, remote) for into in regions))
        assert all(end.done for end in ends)
        assert all(bytes(into.buffer) == pattern().tobytes() for into in regions)
        regions[0].buffer[0] = 77
        assert (await tranship.write_async(other, regions[0].slice(0, 1), remote, at=5)).done

    asyncio.run(several())
    assert region.buffer[5] == 77


def test_a_cancelled_task_cancels_its_transfer():
    async def wait(engine, remote):
        return await asyncio.wait_for(tranship.read_async(engine, engine.alloc(SIZE), remote, timeout=60), 0.05)

    with Engine("tcp") as engine:
        remote, listener = to_nobody(engine)
        with listener, pytest.raises(asyncio.TimeoutError):
            asyncio.run(wait(engine, remote))


def owner(pipe, fabrics):
    with Engine(fabrics) as engine:
        window = filled(engine).window()
        pipe.send(window.descriptor)
        pipe.recv()


@pytest.mark.parametrize("fabrics", ["shm", "tcp"])
def test_a_peer_that_dies_ends_reads_in_time(fabrics):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=owner, args=(there, fabrics))
    child.start()
    assert here.poll(60)
    with Engine(fabrics) as engine:
        remote, into = engine.open(here.recv()), engine.alloc(SIZE)
        assert engine.read(into, remote).done and bytes(into.buffer) == pattern().tobytes()
        child.kill()
        child.join(30)
        outcome = engine.read(into, remote, timeout=20)
        assert not outcome.done and outcome.reason in (
            "the peer is gone", "the peer cannot be reached", "the deadline came"
        )  # fmt: skip


def test_engines_with_other_secrets_do_not_talk():
    with Engine("tcp", tcp_secret="one") as one, Engine("tcp", tcp_secret="other") as other:
        window = filled(one).window()
        outcome = other.read(other.alloc(SIZE), other.open(window.descriptor))
        assert outcome.end == "rejected" and outcome.reason == "the peer refuses the token"


def in_child(engine, region, window, remote, transfer, pipe):
    kinds = []
    calls = (
        lambda: engine.alloc(9), lambda: region.buffer, lambda: window.descriptor, lambda: remote.nbytes, transfer.done,
    )  # fmt: skip
    for call in calls:
        try:
            call()
            kinds.append("worked")
        except Error as error:
            kinds.append(error.kind)
    engine.close()
    del engine, region, window, remote, transfer
    with Engine("shm") as own:
        kinds.append(own.read(own.alloc(9), own.open(own.alloc(9).window().descriptor)).end)
    pipe.send(kinds)
    pipe.close()
    os._exit(0)


def test_a_forked_child_opens_its_own():
    with Engine("shm") as engine:
        region = filled(engine)
        window = region.window()
        remote = engine.open(window.descriptor)
        transfer = engine.submit_read(engine.alloc(SIZE), remote)
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(
            target=in_child, args=(engine, region, window, remote, transfer, there)
        )
        child.start()
        assert here.poll(60)
        kinds = here.recv()
        assert kinds[:5] == ["forked"] * 5 and len(kinds) == 6
        child.join(30)
        assert child.exitcode == 0
        assert transfer.wait(30).done and engine.read(engine.alloc(SIZE), remote).done
