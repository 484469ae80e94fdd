"""Blocks filled and read in place, and the events of a real daemon."""

import gc
import threading

import numpy
import pytest
from tranship import Error, Keys, LoadResult, NoRoom, Room, StoreResult

SIZE = 4096 * 3 + 17


def kind(call, *arguments, **named):
    with pytest.raises(Error) as raised:
        call(*arguments, **named)
    return raised.value.kind


def data(first):
    return bytes([first]) * SIZE


def stored(cache, *names):
    keys = Keys.of_names(list(names))
    assert cache.store(keys, [data(i + 1) for i in range(len(names))]).ok
    return keys


def test_a_block_is_filled_in_place(cache):
    keys = Keys.of_names(["a", "b"])
    rooms = cache.reserve(keys, SIZE)
    assert [type(room) for room in rooms] == [Room, Room] and len(rooms[0]) == rooms[0].nbytes == SIZE
    rooms[0].buffer[:] = data(1)
    numpy.frombuffer(rooms[1].buffer, "u1")[:] = 2
    assert len(cache.lookup(keys)) == 0, "nobody can read it yet"
    again = cache.reserve(keys, SIZE)
    assert [type(none) for none in again] == [NoRoom, NoRoom] and again[0].result == StoreResult.IN_FLIGHT
    assert cache.commit(rooms).ok
    into = [bytearray(SIZE), bytearray(SIZE)]
    assert cache.load(keys, into).ok and into == [data(1), data(2)]
    assert cache.reserve(keys, [SIZE, SIZE])[1].result == StoreResult.EXISTS
    assert kind(lambda: rooms[0].buffer) == "closed"
    assert kind(cache.commit, rooms) == "closed"
    refused = cache.reserve(Keys.of_names(["huge"]), 1 << 40)[0]
    assert refused.result == StoreResult.REFUSED and refused.why
    assert kind(cache.reserve, keys, [SIZE]) == "invalid"


def test_a_room_in_use_is_not_committed(cache):
    keys = Keys.of_names(["a"])
    (room,) = cache.reserve(keys, SIZE)
    view = room.buffer
    view[:] = data(7)
    assert kind(cache.commit, [room]) == "invalid"
    view.release()
    assert kind(cache.commit, [room, room]) == "invalid"
    assert cache.commit([room]).ok
    into = bytearray(SIZE)
    assert cache.load(keys, [into]).ok and into == data(7)


def test_rooms_that_are_let_go_of_are_given_back(cache):
    keys = Keys.of_names(["a"])
    (room,) = cache.reserve(keys, SIZE)
    view = room.buffer
    del room
    gc.collect()
    view[:] = data(3)
    assert cache.reserve(keys, SIZE)[0].result == StoreResult.IN_FLIGHT, "the view holds the room"
    del view
    gc.collect()
    with cache.reserve(keys, SIZE)[0] as room:
        assert isinstance(room, Room)
    assert kind(lambda: room.buffer) == "closed"
    assert isinstance(cache.reserve(keys, SIZE)[0], Room)


def test_blocks_are_read_in_place(cache):
    keys = stored(cache, "a", "b")
    with cache.lease(keys) as lease:
        first, second = lease[0], lease[1]
        assert first.nbytes == SIZE and first.buffer == data(1) and first.buffer.readonly
        tensor = numpy.from_dlpack(second)
        assert tensor.dtype == numpy.uint8 and tensor.tobytes() == data(2) and not tensor.flags.writeable
        for refused in ({}, {"max_version": (1, 0), "copy": True}, {"max_version": (1, 0), "dl_device": (2, 0)}):
            with pytest.raises(BufferError):
                second.__dlpack__(**refused)
        with pytest.raises(TypeError):
            first.buffer[0] = 1
        with pytest.raises(IndexError):
            lease[2]
        view = first.buffer
    assert kind(lambda: first.buffer) == kind(lambda: lease[0]) == kind(lambda: first.nbytes) == "closed"
    # The daemon does not take the memory while somebody reads it.
    assert cache.remove(keys) == 2
    for i in range(40):
        cache.store(Keys.of_names([f"other {i}"]), [data(99)])
    assert view == data(1) and tensor.tobytes() == data(2)


def test_a_block_that_is_not_there_says_so(cache):
    with cache.lease(Keys.of_names(["nobody"])) as lease:
        assert lease.results == [LoadResult.GONE]
        assert kind(lambda: lease[0].buffer) == kind(lambda: lease[0].nbytes) == "failed"


def test_events_tell_what_happens(cache, identity):
    with cache.events(timeout=30) as events:
        keys = stored(cache, "a")
        event = next(events)
        assert event["kind"] == "stored" and event["key"] == keys[0] and event["parent"] is None
        assert event["nbytes"] == SIZE and event["tier"] == "dram" and event["identity"] == identity.id
        cache.remove(keys)
        following = next(events)
        assert following["kind"] == "removed" and following["key"] == keys[0]
        assert following["sequence"] == event["sequence"] + 1
        assert events.next(0.0) is None
    assert list(events) == []
    assert kind(events.next, 0.0) == "closed"
    with cache.events(event["sequence"], timeout=30) as again:
        assert next(again) == event and next(again) == following
    assert list(cache.events(timeout=0)) == [], "nothing has happened since"


def test_closing_events_ends_a_wait(cache):
    events = cache.events()
    seen, begun = [], threading.Event()

    def follow():
        begun.set()
        seen.extend(events)

    thread = threading.Thread(target=follow)
    thread.start()
    begun.wait(30)
    events.close()
    thread.join(30)
    assert not thread.is_alive() and seen == []


def test_events_of_a_daemon_that_is_gone(daemon, cache):
    events = cache.events()
    daemon.kill()
    assert kind(next, events) in ("disconnected", "unreachable")
    events.close()


def test_views_outlive_the_connection(cache):
    lease = cache.lease(stored(cache, "a"))
    (room,) = cache.reserve(Keys.of_names(["b"]), SIZE)
    view, space = lease[0].buffer, room.buffer
    cache.close()
    del lease, room
    gc.collect()
    space[:] = data(5)
    assert view == data(1) and space == data(5)
