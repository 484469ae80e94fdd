"""LMCache with TranshipL2Adapter: its own storage manager, with its store and prefetch controllers, in fresh processes."""

import json
import os
import subprocess
import sys
import time

import fresh
import lmcache_server
import pytest

pytest.importorskip("lmcache", reason="LMCache is not installed in this environment")

SHAPE = (2, 4, 256, 128)
CHUNKS = 6
_kept = {}


ADAPTERS = {
    "plugin": {"type": "plugin", "module_path": "tranship.lmcache", "class_name": "TranshipL2Adapter"},
    "native": {"type": "native_plugin", "module_path": "tranship.lmcache", "class_name": "TranshipClient"},
}


def start(address, kind="plugin", **params):
    """LMCache's storage, with an adapter below it."""
    import threading

    from lmcache.v1.distributed import config
    from lmcache.v1.distributed.internal_api import L2AdapterListener
    from lmcache.v1.distributed.storage_manager import StorageManager

    adapter = {**ADAPTERS[kind], "adapter_params": {"address": address, **params}}
    manager = StorageManager(
        config.parse_args(
            ["--l1-size-gb", "0.1", "--no-l1-use-lazy", "--eviction-policy", "LRU", "--l2-adapter", json.dumps(adapter)]
        )
    )

    class Stored(L2AdapterListener):
        def __init__(self):
            self.count, self.changed = 0, threading.Condition()

        def on_l2_keys_stored(self, keys, *_):
            with self.changed:
                self.count += len(keys)
                self.changed.notify_all()

        def on_l2_keys_accessed(self, *_):
            pass

        def on_l2_keys_deleted(self, *_):
            pass

    _kept.update(manager=manager, stored=Stored())
    manager.register_l2_listener(_kept["stored"])


def stop():
    if "manager" in _kept:
        _kept["manager"].close()
    if "llm" in _kept:
        _kept["llm"].llm_engine.engine_core.shutdown()


def keys(model, rank=0, salt="", group=0):
    from lmcache.v1.distributed.api import ObjectKey

    return [ObjectKey(bytes([i]) * 32, model, rank, group, salt) for i in range(CHUNKS)]


def described(dtype="bfloat16", shape=SHAPE):
    import torch
    from lmcache.v1.distributed.api import MemoryLayoutDesc

    return MemoryLayoutDesc([torch.Size(shape)], [getattr(torch, dtype)])


def store(model, wait=True, **key):
    """Writes chunks as an engine does; their bytes."""
    import torch

    manager, stored = _kept["manager"], _kept["stored"]
    before, wanted = stored.count, keys(model, **key)
    room = manager.reserve_write(wanted, described())
    assert len(room) == CHUNKS
    found = []
    for i, one in enumerate(wanted):
        torch.manual_seed(i)
        room[one].tensor.copy_(torch.randn(SHAPE))
        found.append(digest(room[one].tensor))
    manager.finish_write(wanted)
    if wait:
        with stored.changed:
            assert stored.changed.wait_for(lambda: stored.count == before + CHUNKS, 30)
    return found


def load(model, dtype="bfloat16", shape=SHAPE, **key):
    """How many chunks, from the first, came from below, and their bytes."""
    from lmcache.v1.distributed.api import GroupedObjectKeys, PrefetchTaskSpec

    manager, wanted = _kept["manager"], keys(model, **key)
    spec = PrefetchTaskSpec([GroupedObjectKeys(wanted, key.get("group", 0), described(dtype, shape))])
    handle = manager.submit_prefetch_task(spec)
    assert manager.wait_prefetch_status(handle, 30)
    result = manager.query_prefetch_status(handle)
    assert not result.l1_hit_cells or result.l1_hit_cells[0].popcount() == 0
    count = result.hit_cells[0].popcount() if result.hit_cells else 0
    if not count:
        return [0, []]
    with manager.read_prefetched_results(wanted[:count]) as objects:
        found = [digest(each.tensor) for each in objects]
    manager.finish_read_prefetched(wanted[:count])
    manager.clear(force=True)
    return [count, found]


def digest(tensor):
    import hashlib

    import torch

    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy()).hexdigest()


def harm(model, index):
    """Damages a chunk's block in the daemon."""
    import tranship
    from lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter import _object_key_to_string

    client = next(iter(_kept["manager"]._l2_adapters.values()))._client
    names = [_object_key_to_string(key) for key in keys(model)]
    with client.laid_out([f"torch.bfloat16{list(SHAPE)}"] * len(names)):
        full = client._keys(names)
    assert isinstance(full, tranship.Keys)
    fresh.damage(client.cache, full, index)


def test_a_fresh_process_loads_what_another_stored(daemon, models, tmp_path):
    model, other = map(str, models)
    with fresh.Process(__file__, tmp_path / "first.log") as first:
        first.call("start", daemon.address)
        stored = first.call("store", model)

    with fresh.Process(__file__, tmp_path / "second.log") as second:
        second.call("start", daemon.address)
        assert second.call("load", model) == [CHUNKS, stored]
        # A part of the identity that differs is a miss, though the bytes would fit.
        assert second.call("load", model, dtype="float16") == [0, []]
        assert second.call("load", model, shape=(2, 4, 128, 256)) == [0, []]
        assert second.call("load", model, rank=1) == [0, []]
        assert second.call("load", model, salt="tom") == [0, []]
        assert second.call("load", other) == [0, []]
        assert second.call("load", "nobody/knows-this-model") == [0, []]
        assert "set weights_version" in second.told()

        second.call("harm", model, 3)
        assert second.call("load", model) == [3, stored[:3]]
        assert "1 of" in second.told() and "corrupt" in second.told()

        daemon.kill()
        assert second.call("load", model) == [0, []]
        # A store that fails costs nothing but the chunks.
        second.call("store", model, wait=False, salt="gone")
        daemon.start()
        for _ in range(200):
            if second.call("load", other) == [0, []] and second.call("back"):
                break
        stored = second.call("store", model, salt="back")

    with fresh.Process(__file__, tmp_path / "third.log") as third:
        third.call("start", daemon.address)
        assert third.call("load", model, salt="back") == [CHUNKS, stored]
    with fresh.Process(__file__, tmp_path / "fourth.log") as fourth:
        fourth.call("start", daemon.address, weights_version="v2")
        assert fourth.call("load", model, salt="back") == [0, []]


def test_a_native_plugin_is_told_its_layout(daemon, models, tmp_path):
    model, other = map(str, models)
    with fresh.Process(__file__, tmp_path / "first.log") as first:
        first.call("start", daemon.address, "native", layout="bfloat16")
        stored = first.call("store", model)
    with fresh.Process(__file__, tmp_path / "second.log") as second:
        second.call("start", daemon.address, "native", layout="bfloat16")
        assert second.call("load", model) == [CHUNKS, stored]
        assert second.call("load", other) == [0, []]
        # What LMCache deletes is gone.
        assert second.call("delete", model) == [True] * CHUNKS
        assert second.call("load", model) == [0, []]
    with fresh.Process(__file__, tmp_path / "third.log") as third:
        third.call("start", daemon.address, "native", layout="float16")
        third.call("store", model)
    with fresh.Process(__file__, tmp_path / "fourth.log") as fourth:
        fourth.call("start", daemon.address, "native", layout="bfloat16")
        assert fourth.call("load", model) == [0, []]
    with fresh.Process(__file__, tmp_path / "fifth.log") as fifth:
        with pytest.raises(AssertionError, match="give a layout, such as bfloat16"):
            fifth.call("start", daemon.address, "native")


def test_lmcaches_own_check_passes(daemon):
    """`lmcache.v1.basic_check`, which LMCache ships for whoever writes an adapter. It describes no layouts."""
    params = {"address": daemon.address, "layout": "float32", "weights_version": "v1"}
    command = [sys.executable, "-W", "ignore", "-m", "lmcache.v1.basic_check", "--mode", "test_l2_adapter"]
    command += ["--model", "tiny", "--l2-adapter", json.dumps({**ADAPTERS["native"], "adapter_params": params})]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, **fresh.ENVIRONMENT}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for line in ("5/5 correctly absent", "Batch store OK", "5/5 found", "(loaded): 5/5", "(content): 5/5"):
        assert line in run.stdout, run.stdout


PROMPT = [3 + i * 7 % 500 for i in range(600)]


def serve(model, transfer):
    """vLLM, with or without LMCache."""
    lmcache_server.mend()
    from vllm import LLM

    _kept["llm"] = LLM(
        model=model, dtype="float32", block_size=32, enforce_eager=True, enable_prefix_caching=True,
        distributed_executor_backend="uni", max_model_len=2048, max_num_seqs=8, kv_transfer_config=transfer,
    )  # fmt: skip


def generate(prompt):
    """Tokens, and how many of the prompt were cached."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    answer = _kept["llm"].generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)[0]
    return [list(answer.outputs[0].token_ids), answer.num_cached_tokens]


def engine(log):
    return fresh.Process(
        __file__, log, VLLM_TARGET_DEVICE="cpu", VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )  # fmt: skip


def test_vllm_over_lmcache_loads_what_another_server_stored(daemon, models, tmp_path):
    """Engine, LMCache's server and its memory are all new; only the daemon has stayed."""
    import tranship

    model = str(models[0])
    with engine(tmp_path / "plain.log") as plain:
        plain.call("serve", model, None)
        output, _ = plain.call("generate", PROMPT)
    cached = []
    for turn in range(2):
        server = lmcache_server.Server(
            tmp_path / f"server-{turn}.log", 1, *lmcache_server.adapter(address=daemon.address)
        )
        try:
            with engine(tmp_path / f"engine-{turn}.log") as one:
                one.call("serve", model, server.transfer())
                tokens, count = one.call("generate", PROMPT)
                assert tokens == output
                cached.append(count)
                if turn == 0:
                    # Two chunks of 256 tokens, on their way down by themselves.
                    with tranship.connect(daemon.address) as cache:
                        deadline = time.monotonic() + 30
                        while tranship.stats(cache)["gauges"]["resident"]["blocks"] < 2:
                            assert time.monotonic() < deadline, tranship.stats(cache)
        finally:
            server.close()
    assert cached == [0, 512]


def delete(model):
    """Removes chunks as LMCache's eviction does."""
    import select

    adapter = next(iter(_kept["manager"]._l2_adapters.values()))
    client = adapter._client
    from lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter import _object_key_to_string

    # The adapter's own thread takes ends as they come, so that a client apart from it is asked.
    apart = type(client)(layout=client._layout, address=client.cache.address)
    try:
        number = apart.submit_batch_delete([_object_key_to_string(key) for key in keys(model)])
        assert select.select([apart.event_fd()], [], [], 30)[0]
        ((told, good, _, flags),) = apart.drain_completions()
        assert told == number and good
        return flags
    finally:
        apart.close()


def back():
    """Whether the daemon answers again."""
    import tranship

    try:
        next(iter(_kept["manager"]._l2_adapters.values()))._client.cache.ping()
        return True
    except tranship.Error:
        return False


if __name__ == "__main__":
    fresh.answer(globals())
