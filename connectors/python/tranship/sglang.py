"""SGLang: a HiCache storage backend (L3), zero copy from and into the host pool.

    python -m sglang.launch_server --model-path MODEL --page-size 32 --enable-hierarchical-cache \\
        --hicache-mem-layout page_first_direct --hicache-io-backend direct --hicache-storage-backend dynamic \\
        --hicache-storage-backend-extra-config '{"backend_name": "tranship", "module_path": "tranship.sglang",
            "class_name": "TranshipHiCache", "interface_v1": 1, "hicache_storage_pass_prefix_keys": true}'

The extra configuration knows, besides SGLang's own: `address`, `tenant`, `token`, `secret`, `timeout` (seconds a
call may take), `wait` (seconds a load waits for blocks of slower tiers), `weights_version`, `salt`.
"""

import logging
from dataclasses import dataclass

import sglang
import torch
from sglang.srt.mem_cache.hicache_storage import HiCacheStorage, PoolHitPolicy, PoolName, PoolTransferResult

import tranship
from tranship import LoadResult, StoreResult
from tranship._revision import revision, short

logger = logging.getLogger("sglang.tranship")

_SETTINGS = {
    "address": None, "tenant": "default", "token": "", "secret": None, "timeout": 1.0, "wait": 1.0,
    "weights_version": "", "salt": "",
}  # fmt: skip
# What SGLang itself reads of the same dictionary.
_THEIRS = {
    "backend_name", "module_path", "class_name", "interface_v1", "tp_lcm_size", "prefetch_threshold",
    "prefetch_timeout_base", "prefetch_timeout_per_ki_token", "hicache_storage_pass_prefix_keys",
}  # fmt: skip
# Pools whose pages are a rank's own, also where the KV is the same on all ranks (MLA).
_SHARDED = {PoolName.MAMBA}
_THERE = (StoreResult.STORED, StoreResult.EXISTS, StoreResult.IN_FLIGHT)


@dataclass
class _Pool:
    """One host pool: its pages are blocks of one identity."""

    host: object
    identity: tranship.Identity
    guard: tranship.Guard
    context: bytes

    def keys(self, hashes, before):
        """Page hashes are chained already; what comes before tells place and parent."""
        if not before:
            return tranship.Keys.of_hashes(hashes, self.context)
        parent = tranship.Keys.of_hashes(before[-1:], self.context)[0]
        return tranship.Keys.of_hashes(hashes, self.context, start=len(before), parent=parent)

    def segments(self, hashes, indices):
        """The memory of each page, where it lies."""
        at, sizes = self.host.get_page_buffer_meta(indices)
        if len(at) % len(hashes):
            raise ValueError(f"{len(hashes)} pages lie in {len(at)} pieces; expected as many for each page")
        pieces, each = list(zip(at, sizes)), len(at) // len(hashes)
        return tranship.Segments([pieces[i * each : (i + 1) * each] for i in range(len(hashes))], self.host)


class TranshipHiCache(HiCacheStorage):
    """Pages in a Tranship daemon. What cannot be asked, read or trusted is a miss."""

    def __init__(self, storage_config, kwargs=None):
        extra = dict(storage_config.extra_config or {})
        if unknown := sorted(set(extra) - set(_SETTINGS) - _THEIRS):
            raise ValueError(f"hicache-storage-backend-extra-config: {unknown} unknown; there are {sorted(_SETTINGS)}")
        self.config = storage_config
        self.settings = {name: extra.get(name, default) for name, default in _SETTINGS.items()}
        self.zero_copy = bool(extra.get("interface_v1"))
        self.registered_pools, self._pools = {}, {}
        self._revision = self._weights()
        self.cache = tranship.connect(
            self.settings["address"], tenant=self.settings["tenant"], token=self.settings["token"],
            secret=self.settings["secret"], name="sglang", timeout=self.settings["timeout"],
        )  # fmt: skip

    def _weights(self):
        from sglang.srt.runtime_context import get_server_args

        args = get_server_args()
        if self.settings["weights_version"]:
            found = self.settings["weights_version"]
        elif args.load_format == "dummy":
            found = f"dummy-{args.random_seed}"
        else:
            found = revision(args.model_path, args.revision)
        draft = args.speculative_draft_model_path
        return short(
            {
                "weights": found,
                "draft": draft and revision(draft, args.speculative_draft_model_revision),
                "quantization": [str(args.quantization), str(args.load_format), str(args.dtype)],
            }
        )

    # Pools

    def register_mem_pool_host(self, mem_pool_host):
        super().register_mem_pool_host(mem_pool_host)
        if getattr(mem_pool_host, "kv_buffer", None) is not None:
            self._add(PoolName.KV, mem_pool_host)

    def register_mem_host_pool_v2(self, host_pool, host_pool_name):
        super().register_mem_host_pool_v2(host_pool, host_pool_name)
        if host_pool_name != PoolName.KV or PoolName.KV not in self._pools:
            self._add(PoolName(host_pool_name), host_pool)

    def _add(self, name, host):
        identity = self._identity(name, host)
        guard = tranship.Guard(self.cache.with_identity(identity))
        self._pools[name] = _Pool(host, identity, guard, f"sglang/{name}".encode())
        logger.info("pool %s: %s", name, identity)

    def _identity(self, name, host):
        config = self.config
        shared = config.is_mla_model and name not in _SHARDED
        page = torch.arange(host.page_size)
        if self.zero_copy:
            sizes = [int(size) for size in host.get_page_buffer_meta(page)[1]]
        else:
            flat = host.get_dummy_flat_data_page()
            sizes = [flat.numel() * flat.element_size()]
        facts = {
            "sglang": sglang.__version__,
            "pool": [str(name), type(host).__name__, host.storage_format_tag],
            "pieces": sizes,
            "zero_copy": self.zero_copy,
            "layers": [getattr(host, "start_layer", 0), getattr(host, "end_layer", 0)],
            "cp": [config.attn_cp_rank, config.attn_cp_size],
            "dcp": [config.dcp_rank, config.dcp_size, config.logical_page_size],
        }
        return tranship.Identity(
            (config.model_name or "unnamed")[-500:],
            self._revision,
            str(getattr(host, "dtype", "mixed")),
            f"sglang-{host.layout}-{name}-{short(facts)}",
            layers=getattr(host, "layer_num", 1),
            kv_heads=getattr(host, "head_num", 1),
            head_dim=getattr(host, "head_dim", 1),
            tp_size=1 if shared else config.tp_size,
            tp_rank=0 if shared else config.tp_rank,
            pp_size=config.pp_size,
            pp_rank=config.pp_rank,
            block_tokens=host.page_size,
            salt=self.settings["salt"],
        )

    # The batch interface (v1): pages of the KV pool

    def batch_exists(self, keys, extra_info=None):
        pool = self._pools.get(PoolName.KV)
        return pool.guard.lookup(pool.keys(keys, _before(extra_info))) if pool and keys else 0

    def batch_get_v1(self, keys, host_indices, extra_info=None):
        return self._read(PoolName.KV, keys, host_indices, _before(extra_info))

    def batch_set_v1(self, keys, host_indices, extra_info=None):
        return self._write(PoolName.KV, keys, host_indices, _before(extra_info))

    def _read(self, name, hashes, indices, before):
        return self._move(name, hashes, indices, lambda pool, at: self._load(pool, pool.keys(hashes, before), at))

    def _write(self, name, hashes, indices, before):
        return self._move(name, hashes, indices, lambda pool, at: self._store(pool, pool.keys(hashes, before), at))

    def _move(self, name, hashes, indices, move):
        """One flag a page. SGLang's threads are not to see an exception: what went wrong is a miss, and is told."""
        if not hashes:
            return []
        try:
            pool = self._pools[name]
            if indices is None or len(indices) != len(hashes) * pool.host.page_size:
                raise ValueError(f"{len(hashes)} pages have {0 if indices is None else len(indices)} indices")
            return move(pool, pool.segments(hashes, indices))
        except Exception:
            logger.exception("%d pages of pool %s are taken for missing", len(hashes), name)
            return [False] * len(hashes)

    def _load(self, pool, keys, into):
        loaded = pool.guard.load(keys, into, wait=self.settings["wait"])
        if loaded is None:
            return [False] * len(keys)
        if corrupt := sum(result == LoadResult.CORRUPT for result in loaded):
            logger.warning("%d of %d pages were corrupt, they are computed", corrupt, len(loaded))
        return [result == LoadResult.READY for result in loaded]

    def _store(self, pool, keys, pages):
        stored = pool.guard.store(keys, pages)
        return [False] * len(keys) if stored is None else [result in _THERE for result in stored]

    # The same for models with several pools (v2)

    def batch_exists_v2(self, keys, pool_transfers=None, extra_info=None):
        before = _before(extra_info)
        # A pool that only counts, without memory of its own, holds back nothing.
        counted = self.batch_exists(keys, extra_info) if PoolName.KV in self._pools else len(keys)
        hits = {PoolName.KV: counted} if counted else {}
        usable = set(range(1, counted + 1))
        for transfer in pool_transfers or ():
            if not usable:
                break
            pool = self._pools.get(transfer.name)
            there = pool.guard.present(pool.keys(keys[:counted], before)) if pool else [False] * counted
            lengths = _lengths(there, transfer)
            if lengths:
                hits[transfer.name] = max(lengths)
            usable &= lengths
        return PoolTransferResult(max(usable, default=0), hits, sorted(usable))

    def batch_get_v2(self, transfers, extra_info=None):
        return {each.name: self._read(each.name, each.keys or [], each.host_indices, None) for each in transfers}

    def batch_set_v2(self, transfers, extra_info=None):
        return {each.name: self._write(each.name, each.keys or [], each.host_indices, None) for each in transfers}

    # The old interface, page by page in tensors

    def exists(self, key):
        return self.batch_exists([key]) == 1

    def get(self, key, target_location=None, target_sizes=None):
        return self.batch_get([key], [target_location])[0]

    def batch_get(self, keys, target_locations=None, target_sizes=None):
        found = self._tensors(keys, target_locations, self._load)
        return [target if good else None for target, good in zip(target_locations, found)]

    def set(self, key, value=None, target_location=None, target_sizes=None):
        return self.batch_set([key], [value])

    def batch_set(self, keys, values=None, target_locations=None, target_sizes=None):
        return all(self._tensors(keys, values, self._store))

    def _tensors(self, hashes, tensors, move):
        if self.zero_copy:
            logger.error("pages as tensors are of another order than with interface_v1; none is moved")
            return [False] * len(hashes)
        if not hashes:
            return []
        try:
            pool = self._pools[PoolName.KV]
            at = [[(tensor.data_ptr(), tensor.numel() * tensor.element_size())] for tensor in tensors]
            if not all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in tensors):
                raise ValueError("a page is not contiguous in host memory")
            return move(pool, pool.keys(hashes, None), tranship.Segments(at, list(tensors)))
        except Exception:
            logger.exception("%d pages are taken for missing", len(hashes))
            return [False] * len(hashes)

    # The rest

    def clear(self):
        """Blocks belong to all engines of this identity, and none keeps a list: they are not removed."""
        logger.warning("clear: nothing is removed; attach again with another `salt` to begin empty")
        return False

    def close(self):
        self.cache.close()


def _before(extra_info):
    return extra_info.prefix_keys if extra_info is not None else None


def _lengths(there, transfer):
    """The lengths of prefix that a pool can serve."""
    if transfer.hit_policy == PoolHitPolicy.ALL_PAGES:
        first = there.index(False) if False in there else len(there)
        return set(range(1, first + 1))
    if transfer.hit_policy == PoolHitPolicy.TRAILING_PAGES:
        tail = max(1, len(transfer.keys or ()))
        return {end for end in range(1, len(there) + 1) if all(there[max(0, end - tail) : end])}
    # Other policies name keys that are not one a page.
    return set()
