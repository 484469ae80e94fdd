"""For tests: SGLang's hierarchical cache on a host without a GPU.

A general plug-in of SGLang (its entry point lies beside this file), loaded in every process of an engine. In place of
CUDA's host registration and copy kernels stand plain copies; a copy is over when it returns, so events and streams
have nothing to wait for.
"""

import os
import pickle

import torch


def layers_to_host(src_ptrs, dst_ptrs, src_indices, dst_indices, page_size):
    """All layers' rows of K, then of V, into host pages [page, layer, token, head, size]."""
    layers = len(src_ptrs) // len(dst_ptrs)
    page, token = dst_indices // page_size, dst_indices % page_size
    for i, rows in enumerate(src_ptrs):
        host = dst_ptrs[i // layers]
        host[page, i % layers, token] = rows[src_indices].view(host[page, i % layers, token].shape)


def host_to_layer(src_ptrs, dst_ptrs, src_indices, dst_indices, layer_id, page_size):
    """One layer's K and V out of host pages into its rows."""
    page, token = src_indices // page_size, src_indices % page_size
    for host, rows in zip(src_ptrs, dst_ptrs):
        rows[dst_indices] = host[page, layer_id, token].view(rows[dst_indices].shape)


def _nothing(self, *_, **__):
    return None


def register():
    if torch.cuda.is_available():
        return
    for kind, names in (
        (torch.cpu.Stream, ("wait_event", "wait_stream", "synchronize")),
        (torch.cpu.Event, ("record", "wait", "synchronize")),
    ):
        for name in names:
            setattr(kind, name, _nothing)
    torch.cpu.Event.query = lambda self: True
    from sglang.srt.mem_cache.pool_host import common, mha

    common._cuda_host_register = lambda *_, **__: None
    mha.transfer_kv_all_layer_direct_lf_pf = layers_to_host
    mha.transfer_kv_per_layer_direct_pf_lf = host_to_layer


def __getattr__(name):
    """`Watched`: the backend, which writes down what it stored, so that a test can damage it."""
    if name != "Watched":
        raise AttributeError(name)
    from tranship.sglang import PoolName, TranshipHiCache

    class Watched(TranshipHiCache):
        def batch_set_v1(self, keys, host_indices, extra_info=None):
            done = super().batch_set_v1(keys, host_indices, extra_info)
            pool = self._pools[PoolName.KV]
            before = extra_info.prefix_keys if extra_info is not None else None
            with open(os.environ["TRANSHIP_TEST_STORED"], "ab") as file:
                pickle.dump((pool.identity, pool.keys(keys, before)), file)
            return done

    globals()[name] = Watched
    return Watched
