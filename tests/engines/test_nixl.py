"""NIXL agents over libplugin_TRANSHIP.so, each in a process of its own: bytes and notifications compared."""

import base64
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fresh
import pytest

pytest.importorskip("nixl", reason="NIXL is not installed in this environment")
if __name__ != "__main__" and not os.environ.get("NIXL_PLUGIN_DIR"):
    pytest.skip("NIXL_PLUGIN_DIR is not set: tests/engines/run nixl builds the plug-in", allow_module_level=True)

SOURCES = Path(__file__).parent.parent.parent / "ffi/nixl"
MIB = 1 << 20
# An answer within so many seconds is "in time": deadlines are of two seconds where a test waits for one.
BOUND = 30

# In an agent's process.

_kept = {"memories": [], "handles": {}}


def agent(name, **parameters):
    from nixl._api import nixl_agent, nixl_agent_config

    one = nixl_agent(name, nixl_agent_config(backends=[], capture_telemetry=True))
    one.create_backend("TRANSHIP", parameters)
    _kept["agent"] = one
    return one.get_backend_mem_types("TRANSHIP")


def memory(count, size, seed):
    """Registers memories, filled with what the seed says: where they are."""
    import numpy

    rows = []
    for i in range(count):
        block = numpy.random.default_rng(seed + i).integers(0, 256, size, dtype=numpy.uint8)
        rows.append((block.ctypes.data, size, 0, ""))
        _kept["memories"].append(block)
    _kept["registered"] = _kept["agent"].register_memory(rows, "DRAM")
    return [row[:2] for row in rows]


def deregister():
    _kept["agent"].deregister_memory(_kept["registered"])


def metadata():
    return base64.b64encode(_kept["agent"].get_agent_metadata()).decode()


def add(data):
    try:
        return _kept["agent"].add_remote_agent(base64.b64decode(data)).decode()
    except Exception as error:
        return type(error).__name__


def forget(name):
    _kept["agent"].remove_remote_agent(name)


def digests():
    return [hashlib.sha256(block).hexdigest() for block in _kept["memories"]]


def fill(index, value):
    _kept["memories"][index][:] = value


def post(key, op, near, far, peer, notice=""):
    """Starts a transfer: how it stands, or what is wrong with it."""
    one = _kept["agent"]
    try:
        lists = [one.get_xfer_descs([(*row, 0) for row in rows], "DRAM") for rows in (near, far)]
        handle = one.initialize_xfer(op, *lists, peer, notice.encode())
        _kept["handles"][key] = handle
        return one.transfer(handle)
    except Exception as error:  # NIXL's errors have no base class of their own.
        return type(error).__name__


def wait(key, within):
    """How a transfer ended."""
    end = time.monotonic() + within
    try:
        while (state := _kept["agent"].check_xfer_state(_kept["handles"][key])) == "PROC":
            if time.monotonic() > end:
                return "late"
        return state
    except Exception as error:
        return type(error).__name__


def move(*arguments, within=BOUND, key="move"):
    state = post(key, *arguments)
    state = wait(key, within) if state == "PROC" else state
    if state == "DONE":
        _kept["handles"].pop(key).release()
    return state


def release(key):
    try:
        _kept["agent"].release_xfer_handle(_kept["handles"][key])
        return "released"
    except Exception as error:
        return type(error).__name__


def counted(key):
    of = _kept["agent"].get_xfer_telemetry(_kept["handles"][key])
    return [of.totalBytes, of.descCount, _kept["agent"].query_xfer_backend(_kept["handles"][key])]


def told(count, within):
    """The first so many notifications."""
    got, end = [], time.monotonic() + within
    while len(got) < count and time.monotonic() < end:
        for name, notices in _kept["agent"].get_new_notifs().items():
            got += [[name, notice.decode()] for notice in notices]
    return got


def notify(name, text):
    try:
        _kept["agent"].send_notif(name, text.encode())
        return "sent"
    except Exception as error:
        return type(error).__name__


def forked(within):
    """How a child ends that drops its parent's agent."""
    child = os.fork()
    if child == 0:
        del _kept["agent"]
        os._exit(7)
    end = time.monotonic() + within
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            break
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rounds(count, peer, far):
    """Writes memories full of the number of the round, each time when the peer has seen the last: never asks how a
    write stands before the peer has answered, so that it is others who follow it."""
    near = [[block.ctypes.data, block.size] for block in _kept["memories"]]
    for number in range(count):
        for index in range(len(near)):
            fill(index, number % 256)
        state = post(number, "WRITE", near, far, peer, str(number))
        seen = told(1, BOUND) == [[peer, f"seen {number}"]]
        if state not in ("PROC", "DONE") or not seen or wait(number, BOUND) != "DONE":
            return f"round {number}: {state}"
        release(number)
    return "well"


def watch(count, peer):
    """At each notification the bytes it is about must be there, all of them."""
    for number in range(count):
        if told(1, BOUND) != [[peer, str(number)]]:
            return f"round {number} was not told"
        for block in _kept["memories"]:
            if not (block == number % 256).all():
                return f"round {number} was told before its bytes were there"
        notify(peer, f"seen {number}")
    return "well"


# In the test.


@pytest.fixture
def agents(tmp_path):
    """Starts agents; they end with the test."""
    started = []

    def start(name, count=4, size=MIB, **parameters):
        one = fresh.Process(__file__, tmp_path / f"{name}-{len(started)}.log")
        started.append(one)
        one.name = name
        assert one.call("agent", name, **parameters) == ["DRAM_SEG"]
        one.rows = one.call("memory", count, size, 100 * len(started))
        return one

    yield start
    for one in started:
        try:
            one._process.send_signal(signal.SIGCONT)
        except ProcessLookupError:
            pass
        try:
            one.close()
        except (BrokenPipeError, ProcessLookupError):
            pass


def introduce(one, other):
    assert one.call("add", other.call("metadata")) == other.name
    assert other.call("add", one.call("metadata")) == one.name


def cut(rows, other, count, seed):
    """The same memories on both sides in so many pieces of any length, in any order; pieces of the other side lie in
    another order in memory of the same sizes."""
    choose = random.Random(seed)
    near, far = [], []
    for (at, size), (to, _) in zip(rows, other):
        edges = sorted(choose.sample(range(1, size), count - 1))
        lengths = [b - a for a, b in zip([0, *edges], [*edges, size])]
        order = list(range(count))
        choose.shuffle(order)
        place, where = {}, 0
        for index in order:
            place[index] = where
            where += lengths[index]
        for index, start in enumerate([0, *edges]):
            near.append([at + start, lengths[index]])
            far.append([to + place[index], lengths[index]])
    mixed = list(range(len(near)))
    choose.shuffle(mixed)
    return [near[i] for i in mixed], [far[i] for i in mixed]


def test_pieces_written_and_read_back(agents):
    one, other = agents("one"), agents("other")
    introduce(one, other)
    near, far = cut(one.rows, other.rows, 256, 7)
    before, theirs = one.call("digests"), other.call("digests")
    assert one.call("post", "a", "WRITE", near, far, "other", "written") in ("PROC", "DONE")
    assert one.call("wait", "a", BOUND) == "DONE"
    assert one.call("counted", "a") == [4 * MIB, len(near), "TRANSHIP"]
    assert other.call("told", 1, BOUND) == [["one", "written"]]
    scattered = other.call("digests")
    assert all(a != b for a, b in zip(scattered, theirs)), "all memories were written"
    # Overwritten here, and read back in the order of the pieces: what was there before.
    for index in range(4):
        one.call("fill", index, 0)
    assert one.call("move", "READ", near, far, "other", "read") == "DONE"
    assert one.call("digests") == before
    assert other.call("told", 1, BOUND) == [["one", "read"]]
    assert other.call("digests") == scattered, "reading changes nothing"
    # A handle can be posted again.
    assert one.call("release", "a") == "released"


def test_a_notification_comes_after_its_bytes(agents):
    one, other = agents("one", 4, 8 * MIB), agents("other", 4, 8 * MIB)
    introduce(one, other)
    answers = {}
    watcher = threading.Thread(target=lambda: answers.update(watch=other.call("watch", 40, "one")))
    watcher.start()
    assert one.call("rounds", 40, "other", other.rows) == "well"
    watcher.join(BOUND)
    assert answers == {"watch": "well"}


def test_transfers_within_an_agent(agents):
    one = agents("one", 2)
    (a, b), (c, _) = one.rows
    assert one.call("move", "WRITE", [[a, b]], [[c, b]], "one", "mine") == "DONE"
    first, second = one.call("digests")
    assert first == second
    assert one.call("told", 1, BOUND) == [["one", "mine"]]


def test_what_is_wrong_is_an_error_and_no_more(agents):
    one, other = agents("one"), agents("other")
    introduce(one, other)
    (near, size), (far, _) = one.rows[0], other.rows[0]
    before = other.call("digests")
    # Beyond what was registered, on either side; of two lengths; too long a notification.
    for mine, theirs in [
        ([near, size], [far + MIB, size]),
        ([near, 8], [far + size - 4, 8]),
        ([near - 64, 64], [far, 64]),
        ([near, 64], [far, 65]),
    ]:
        state = one.call("move", "WRITE", [mine], [theirs], "other")
        assert state not in ("PROC", "DONE", "late"), (mine, theirs)
    assert one.call("post", "long", "WRITE", [[near, 8]], [[far, 8]], "other", "x" * 70_000) == "nixlInvalidParamError"
    # Pieces that overlap where they land.
    state = one.call("move", "WRITE", [[near, 64], [near + 64, 64]], [[far, 64], [far + 32, 64]], "other")
    assert state == "nixlInvalidParamError"
    assert other.call("digests") == before
    # Descriptors that were changed on their way: what is no descriptor, and what has the wrong keys.
    data = base64.b64decode(other.call("metadata"))
    third = agents("third")
    assert third.call("add", base64.b64encode(data.replace(b'"key":', b'"kez":')).decode()) == "nixlInvalidParamError"
    forged = re.sub(rb'("key":\d*)(\d)', lambda key: key[1] + b"%d" % ((int(key[2]) + 1) % 10), data)
    assert forged != data
    assert third.call("add", base64.b64encode(forged).decode()) == "other"
    assert third.call("move", "WRITE", [third.rows[0]], [[far, size]], "other") in ("ERR", "nixlNotAllowedError")
    assert other.call("digests") == before
    # Memory that its owner took back after it had been told.
    other.call("deregister")
    assert one.call("move", "WRITE", [[near, size]], [[far, size]], "other") in ("ERR", "nixlNotAllowedError")
    assert other.call("digests") == before
    # Nobody of that name, and kinds of memory that there is no way to.
    assert one.call("notify", "nobody", "hello") == "nixlNotFoundError"
    assert one.call("notify", "other", "hello") == "sent"
    assert other.call("told", 1, BOUND) == [["one", "hello"]]


def test_a_killed_peer_and_another_one(agents):
    big = 256 * MIB
    one, other = agents("one", 1, big), agents("other", 1, big)
    introduce(one, other)
    assert one.call("post", "lost", "WRITE", one.rows, other.rows, "other", "never") == "PROC"
    other._process.kill()
    begun = time.monotonic()
    assert one.call("wait", "lost", BOUND) in ("ERR", "nixlRemoteDisconnectError")
    assert one.call("notify", "other", "hello") != "sent"
    assert time.monotonic() - begun < BOUND
    assert one.call("release", "lost") == "released"
    one.call("forget", "other")
    again = agents("other", 1, big)
    introduce(one, again)
    assert one.call("move", "WRITE", one.rows, again.rows, "other", "well") == "DONE"
    assert again.call("told", 1, BOUND) == [["one", "well"]]
    assert again.call("digests") == one.call("digests")


def test_a_silent_peer_is_given_up_by_the_deadline(agents):
    big = 256 * MIB
    one, other = agents("one", 1, big, deadline_ms="2000"), agents("other", 1, big)
    introduce(one, other)
    assert one.call("move", "WRITE", [[one.rows[0][0], 8]], [[other.rows[0][0], 8]], "other") == "DONE"
    other._process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    assert one.call("post", "silent", "WRITE", one.rows, other.rows, "other") == "PROC"
    assert one.call("wait", "silent", BOUND) not in ("PROC", "DONE", "late")
    assert 1 < time.monotonic() - begun < BOUND
    # Its bytes may still be on their way: not before they are not is the handle given back.
    other._process.send_signal(signal.SIGCONT)
    end = time.monotonic() + BOUND
    while (state := one.call("release", "silent")) != "released" and time.monotonic() < end:
        pass
    assert state == "released"


def test_a_transfer_that_is_released_moves_no_more(agents, tmp_path):
    big, trace = 512 * MIB, tmp_path / "trace.jsonl"
    one, other = agents("one", 1, big, trace=str(trace)), agents("other", 1, big)
    introduce(one, other)
    stopped = 0
    for number in range(4):
        one.call("fill", 0, 10 + number)
        if one.call("post", number, "WRITE", one.rows, other.rows, "other") == "DONE":
            continue
        assert one.call("release", number) == "released"
        stopped += 1
        seen = other.call("digests")
        one.call("fill", 0, 200)
        assert other.call("digests") == seen, "bytes of after the release"
    assert stopped, "all were done before they could be released"
    ends = [json.loads(line) for line in trace.read_text().splitlines()]
    cancelled = [line for line in ends if (line["status"], line["op"], line["bytes"]) == (-11, "write", big)]
    assert len(ends) == 4 and len(cancelled) == stopped


def test_a_forked_child_leaves_the_agent_of_its_parent_alone(agents):
    one, other = agents("one"), agents("other")
    introduce(one, other)
    assert one.call("forked", BOUND) == 7
    # Still followed when nobody asks.
    assert one.call("post", "a", "WRITE", one.rows, other.rows, "other", "well") == "PROC"
    assert other.call("told", 1, BOUND) == [["one", "well"]]
    assert other.call("digests") == one.call("digests")


def built(tmp_path, change):
    """A plug-in of changed sources, unchecked."""
    copy = tmp_path / "ffi/nixl"
    shutil.copytree(SOURCES, copy)
    shutil.copytree(SOURCES.parent / "include", tmp_path / "ffi/include")
    target = Path(os.environ.get("CARGO_TARGET_DIR", SOURCES.parent.parent / "target"))
    header = copy / "abi.hpp"
    text = header.read_text()
    assert change(text) != text
    header.write_text(change(text))
    subprocess.run([copy / "build", tmp_path / "out", "-", target / "release/libtranship.a"], check=True)
    return tmp_path / "out/libplugin_TRANSHIP.so"


def reordered(text):
    """Two functions of the class in each other's place: what releases of NIXL have done."""
    first, second = "  virtual bool supportsLocal() const = 0;\n", "  virtual bool supportsNotif() const = 0;\n"
    return text.replace(first + second, second + first)


@pytest.mark.parametrize(
    "change, why",
    [
        (reordered, "slot 3 of NIXL 1.5.1 is C::supportsLocal() const (libplugin_UCX.so)"),
        (lambda text: text.replace("  virtual void releaseMemView(void *) const {}\n", ""), "has 27 virtual slots"),
        (lambda text: text.replace("releaseMemView(void *)", "releaseMemView(const void *)"), "slot 17 of NIXL 1.5.1"),
        (lambda text: text.replace("NIXL_PLUGIN_VERSION = 1", "NIXL_PLUGIN_VERSION = 7"), "version 1"),
    ],
)
def test_a_plugin_that_does_not_fit_is_not_installed(tmp_path, change, why):
    plugin = built(tmp_path, change)
    done = subprocess.run([SOURCES / "check", plugin, sys.executable], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert why in done.stderr and "install NIXL 1.5.1" in done.stderr


def test_a_parameter_that_nobody_knows_is_refused(tmp_path):
    with fresh.Process(__file__, tmp_path / "agent.log") as one:
        with pytest.raises(AssertionError):
            one.call("agent", "one", dead_line="7")
    assert "no parameter is called dead_line" in one.told()


if __name__ == "__main__":
    fresh.answer(globals())
