"""SGLang on the CPU with TranshipHiCache: its storage contract, and engines in fresh processes."""

import json
import os
import time
from pathlib import Path

import fresh
import pytest

pytest.importorskip("sglang", reason="SGLang is not installed in this environment")

PROMPT = [3 + i * 7 % 500 for i in range(600)]
PAGE = 32
# Full pages of the prompt.
CACHED = 576
LAYOUTS = ("layer_first", "page_first", "page_first_direct", "page_head")
_kept = {}


def extra(address, watched=False, **more):
    where = ("tranship_sglang_cpu", "Watched") if watched else ("tranship.sglang", "TranshipHiCache")
    return {"backend_name": "tranship", "module_path": where[0], "class_name": where[1], "interface_v1": 1,
            "hicache_storage_pass_prefix_keys": True, "prefetch_threshold": 32, "address": address, **more}  # fmt: skip


# The contract, with SGLang's own factory and host pools


def pool(model, layout="page_first_direct", page=PAGE, dtype="bfloat16", heads=2):
    import torch
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool
    from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost
    from sglang.srt.server_args import ServerArgs, set_global_server_args_for_scheduler

    set_global_server_args_for_scheduler(ServerArgs(model_path=model, device="cpu"))
    device = MHATokenToKVPool(
        size=1024, page_size=page, dtype=getattr(torch, dtype), head_num=heads, head_dim=64, layer_num=4, device="cpu",
        enable_memory_saver=False,
    )  # fmt: skip
    info = device.get_device_pool_infos()[0].buffer_info
    return MHATokenToKVPoolHost(
        info, 2.0, 0, page, layout, pin_memory=False, device_capacity_tokens=device.size, start_layer=0, end_layer=4
    )


def backend(host, address, rank=0, ranks=1, mla=False, **more):
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig
    from sglang.srt.mem_cache.storage import StorageBackendFactory

    config = HiCacheStorageConfig(
        tp_rank=rank, tp_size=ranks, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1, is_mla_model=mla,
        enable_storage_metrics=False, is_page_first_layout=host.layout != "layer_first", model_name="tiny",
        extra_config=extra(address, **more),
    )  # fmt: skip
    made = StorageBackendFactory.create_backend("dynamic", config, host)
    made.register_mem_pool_host(host)
    made.on_host_pools_registered()
    return made


def hashes(count, salt=0):
    return [f"{salt:032x}{i:032x}" for i in range(count)]


def store(address, model, layout, seed, **options):
    """Stores four pages; their bytes."""
    import torch

    torch.manual_seed(seed)
    host = pool(model, layout)
    host.kv_buffer.copy_(torch.randn(host.kv_buffer.shape))
    made = backend(host, address, **options)
    # In pages that do not lie in order.
    indices = torch.cat([torch.arange(page * PAGE, (page + 1) * PAGE) for page in (5, 2, 9, 3)])
    assert made.batch_set_v1(hashes(4), indices) == [True] * 4
    return [pages_digest(host, page) for page in (5, 2, 9, 3)]


def pages_digest(host, page):
    import hashlib

    import torch

    return hashlib.sha256(host.get_data_page(page * PAGE).contiguous().view(torch.uint8).numpy()).hexdigest()


def load(address, model, layout, harm=None, **options):
    """How many of the four pages are there, which were loaded, and the bytes."""
    import torch
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorageExtraInfo

    host = pool(model, layout)
    host.kv_buffer.zero_()
    made = backend(host, address, **options)
    if harm is not None:
        only = made._pools["kv"]
        fresh.damage(made.cache.with_identity(only.identity), only.keys(hashes(4), None), harm)
    there = made.batch_exists(hashes(4) + ["ff" * 32])
    # A batch that begins within the sequence finds the same pages.
    assert made.batch_exists(hashes(4)[2:], HiCacheStorageExtraInfo(prefix_keys=hashes(2))) == max(0, there - 2)
    indices = torch.cat([torch.arange(page * PAGE, (page + 1) * PAGE) for page in (8, 7, 6, 1)])
    flags = made.batch_get_v1(hashes(4), indices)
    return [there, flags, [pages_digest(host, page) for page in (8, 7, 6, 1)]]


def identities(address, model, other):
    """The identities of backends that differ in one thing each."""
    cases = {
        "same": {}, "again": {}, "layout": {"layout": "page_first"}, "page": {"page": 64}, "dtype": {"dtype": "float16"},
        "heads": {"heads": 4}, "rank": {"rank": 1, "ranks": 2}, "ranks": {"ranks": 2}, "salt": {"salt": "s"},
        "version": {"weights_version": "v2"}, "weights": {"model": other}, "tensors": {"interface_v1": 0},
        "mla": {"mla": True}, "mla rank": {"mla": True, "rank": 1, "ranks": 2},
    }  # fmt: skip
    found = {}
    for name, case in cases.items():
        mine = {key: case.pop(key) for key in ("layout", "page", "dtype", "heads") if key in case}
        host = pool(case.pop("model", model), **mine)
        found[name] = backend(host, address, **case)._pools["kv"].identity.id
    return found


def tensors(address, model):
    """The interface without zero copy: pages as tensors."""
    import torch

    host = pool(model)
    made = backend(host, address, interface_v1=0)
    pages = [torch.randn(host.get_dummy_flat_data_page().shape).to(host.dtype) for _ in range(3)]
    targets = [host.get_dummy_flat_data_page() for _ in range(3)]
    assert made.batch_set(hashes(3, 1), pages) is True
    got = made.batch_get(hashes(3, 1), targets)
    assert made.exists(hashes(3, 1)[0]) and not made.exists("ee" * 32)
    assert made.batch_get(["ee" * 32], [host.get_dummy_flat_data_page()]) == [None]
    return [torch.equal(page, one) for page, one in zip(pages, got)]


def pools(address, model):
    """Several pools: hits as their policies say, bytes of each in its own blocks."""
    import torch
    from sglang.srt.mem_cache.hicache_storage import PoolHitPolicy, PoolName, PoolTransfer

    host, window = pool(model), pool(model, heads=4)
    for each in (host, window):
        each.kv_buffer.copy_(torch.randn(each.kv_buffer.shape))
    made = backend(host, address, salt="pools")
    made.register_mem_host_pool_v2(host, PoolName.KV)
    made.register_mem_host_pool_v2(window, PoolName.SWA)
    keys = hashes(6, 2)
    everything = torch.arange(6 * PAGE)
    assert made.batch_set_v1(keys, everything) == [True] * 6
    tail = PoolTransfer(PoolName.SWA, host_indices=everything[: 2 * PAGE], keys=keys[2:4],
                        hit_policy=PoolHitPolicy.TRAILING_PAGES)  # fmt: skip
    assert made.batch_set_v2([tail]) == {PoolName.SWA: [True, True]}
    want = [pages_digest(window, page) for page in (0, 1)]
    found = made.batch_exists_v2(keys, [tail])
    window.kv_buffer.zero_()
    tail.host_indices = everything[4 * PAGE :]
    assert made.batch_get_v2([tail]) == {PoolName.SWA: [True, True]}
    tail.hit_policy = PoolHitPolicy.ALL_PAGES
    return {
        "hits": [found.kv_hit_pages, found.restorable_prefix_pages],
        "bytes": want == [pages_digest(window, page) for page in (4, 5)],
        "all": made.batch_exists_v2(keys, [tail]).kv_hit_pages,
        "wrong": made.batch_get_v2([PoolTransfer(PoolName.SWA, host_indices=everything[:3], keys=keys[:1])]),
    }


def absent(model):
    """What a server says that starts without a daemon."""
    try:
        backend(pool(model), "unix:///nobody/is/here")
    except Exception as error:
        return str(error)


def unknown(address, model):
    try:
        backend(pool(model), address, adress="unix:///d")
    except ValueError as error:
        return str(error)


def test_the_contract(daemon, models, tmp_path):
    model = str(models[0])
    with fresh.Process(__file__, tmp_path / "one.log") as one, fresh.Process(__file__, tmp_path / "two.log") as two:
        for seed, layout in enumerate(LAYOUTS):
            stored = one.call("store", daemon.address, model, layout, seed)
            assert two.call("load", daemon.address, model, layout) == [4, [True] * 4, stored], layout
            there, flags, loaded = two.call("load", daemon.address, model, layout, harm=2)
            assert flags == [True, True, False, True] and loaded[:2] == stored[:2], layout
            assert "corrupt" in two.told()
        assert two.call("load", daemon.address, model, "page_first", rank=1, ranks=2)[:2] == [0, [False] * 4]

        found = one.call("identities", daemon.address, model, str(models[1]))
        assert found["same"] == found["again"]
        assert found["mla"] == found["mla rank"], "the KV is the same on all ranks"
        apart = [id for name, id in found.items() if name not in ("again", "mla rank", "mla")]
        assert len(set(apart)) == len(apart), found

        assert "start one with `tranship serve`" in one.call("absent", model)
        assert "adress" in one.call("unknown", daemon.address, model)
        assert one.call("tensors", daemon.address, model) == [True] * 3
        assert one.call("pools", daemon.address, model) == {
            "hits": [4, [4]], "bytes": True, "all": 0, "wrong": {"swa": [False]},
        }  # fmt: skip


# Engines


def start(model, extra_config, **options):
    import sglang

    tier = {} if extra_config is None else {
        "enable_hierarchical_cache": True, "hicache_ratio": 2.0, "hicache_mem_layout": "page_first_direct",
        "hicache_io_backend": "direct", "hicache_write_policy": "write_through", "hicache_storage_backend": "dynamic",
        "hicache_storage_prefetch_policy": "wait_complete",
        "hicache_storage_backend_extra_config": json.dumps(extra_config),
    }  # fmt: skip
    _kept["engine"] = sglang.Engine(
        model_path=model, device="cpu", attention_backend="torch_native", sampling_backend="pytorch",
        disable_cuda_graph=True, disable_overlap_schedule=True, mem_fraction_static=0.3, max_total_tokens=8192,
        context_length=2048, dtype="bfloat16", skip_server_warmup=True, log_level="info", page_size=PAGE,
        **tier, **options,
    )  # fmt: skip


def generate(prompt, count=12):
    """Tokens, and how many of the prompt were cached."""
    sampling = {"temperature": 0, "max_new_tokens": count, "ignore_eos": True}
    answer = _kept["engine"].generate(input_ids=prompt, sampling_params=sampling)
    return [answer["output_ids"], answer["meta_info"]["cached_tokens"]]


def stop():
    if "engine" in _kept:
        _kept["engine"].shutdown()


def forget():
    """Empties what the engine itself keeps, on the device and on the host."""
    deadline = time.monotonic() + 60
    # It is refused while pages are on their way to the storage.
    while not _kept["engine"].flush_cache().success:
        assert time.monotonic() < deadline, "the engine is never idle"


def engine(log, stored):
    return fresh.Process(
        __file__,
        log,
        SGLANG_USE_CPU_ENGINE="0",
        TRANSHIP_TEST_STORED=str(stored),
        PYTHONPATH=os.pathsep.join(
            filter(None, [str(Path(__file__).parent), str(Path(__file__).parent / "sglang_cpu"),
                          os.environ.get("PYTHONPATH")])
        ),
    )  # fmt: skip


def test_a_fresh_engine_loads_what_another_stored(daemon, models, tmp_path):
    import tranship

    stored = tmp_path / "stored"
    with engine(tmp_path / "first.log", stored) as first:
        first.call("start", str(models[0]), extra(daemon.address, watched=True))
        output, cached = first.call("generate", PROMPT)
        assert cached == 0
        # The pages are stored by a thread of the scheduler: until the last is there.
        keys, deadline = 0, 200
        while keys < CACHED // PAGE and deadline:
            first.call("generate", [5, 6, 7], 1)
            keys, deadline = sum(len(one) for _, one in fresh.written(stored)), deadline - 1
        assert keys >= CACHED // PAGE

    with engine(tmp_path / "second.log", stored) as second:
        second.call("start", str(models[0]), extra(daemon.address))
        assert second.call("generate", PROMPT) == [output, CACHED]

        identity, keys = fresh.written(stored)[0]
        with tranship.connect(daemon.address, identity=identity) as cache:
            fresh.damage(cache, keys, 5)
        second.call("forget")
        answer, cached = second.call("generate", PROMPT)
        assert answer == output and cached == 5 * PAGE, "what follows a damaged page is computed"
        assert "corrupt" in second.told()

        daemon.kill()
        second.call("forget")
        assert second.call("generate", PROMPT) == [output, 0]
        daemon.start()
        for _ in range(60):
            second.call("forget")
            answer, cached = second.call("generate", PROMPT)
            assert answer == output
            if cached == CACHED:
                break
        assert cached == CACHED, "the cache came back"

    with engine(tmp_path / "third.log", stored) as third:
        third.call("start", str(models[1]), extra(daemon.address))
        assert third.call("generate", PROMPT)[1] == 0, "the weights are others"


if __name__ == "__main__":
    fresh.answer(globals())
