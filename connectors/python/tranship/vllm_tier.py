"""vLLM: a secondary tier of its OffloadingConnector, below the host memory that vLLM keeps itself.

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "OffloadingConnector", "kv_role": "kv_both",
        "kv_connector_extra_config": {"spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": 8589934592,
            "secondary_tiers": [{"type": "TranshipTier", "module_path": "tranship.vllm_tier"}]}}'

A tier knows: `address`, `tenant`, `token`, `secret`, `timeout` (seconds a call may take), `wait` (seconds a load
waits for blocks of slower tiers), `threads`, `weights_version`, `salt`, and `after_reset`: `new`, nothing stored
before a reset of vLLM's cache (which follows an update of the weights) is used again, or `keep`.
"""

import logging
import time
import uuid
from pathlib import Path

import numpy
import torch
import vllm
from vllm.v1.kv_offload.base import LookupResult, Medium, RequestOffloadingContext
from vllm.v1.kv_offload.tiering.async_lookup import AsyncLookupManager
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager

import tranship
from tranship import LoadResult
from tranship._revision import revision, short

logger = logging.getLogger("vllm.tranship")

# How often a wait for a job looks again; each job has a deadline of its own.
_LOOK_SECONDS = 1.0


class _Lookups(AsyncLookupManager):
    """Asks on a thread of its own: the scheduler is told to come back."""

    def __init__(self, tier):
        self.tier = tier
        super().__init__(tier_type=tier.tier_type)

    def batch_lookup(self, keys, req_context):
        return self.tier.guard.present(tranship.Keys.of_names(keys))


class TranshipTier(SecondaryTierManager):
    """Chunks of the primary tier as blocks. Runs in the scheduler's process and never waits there."""

    medium = Medium.STORAGE

    def __init__(
        self, offloading_spec, primary_kv_view, tier_type, backpressure_detector=None, *, address=None,
        tenant="default", token="", secret=None, timeout=1.0, wait=1.0, threads=2, weights_version="", salt="",
        after_reset="new",
    ):  # fmt: skip
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        if after_reset not in ("new", "keep"):
            raise ValueError(f"{tier_type}: after_reset is {after_reset!r}; it can be 'new' or 'keep'")
        self.wait, self.threads, self.salt, self.after_reset = wait, threads, salt, after_reset
        self.rows = numpy.asarray(primary_kv_view).reshape(primary_kv_view.shape[0], -1).view(numpy.uint8)
        self.revision = weights_version or _weights(offloading_spec.config.model.name)
        self.cache = tranship.connect(
            address, tenant=tenant, token=token, secret=secret, name="vllm tier", timeout=timeout
        )
        self.jobs, self.finished = {}, []
        self.queue = self.guard = None
        self._begin("")
        self.lookups = _Lookups(self)

    def _begin(self, epoch):
        """What is stored from now on, and found, is of this epoch."""
        self.identity = _identity(self, self.salt + epoch)
        mine = self.cache.with_identity(self.identity)
        if self.queue is not None:
            self.queue.close()
        self.guard, self.queue = tranship.Guard(mine), tranship.Queue(mine, threads=self.threads)
        logger.info("tier %s: %s", self.tier_type, self.identity)

    def on_new_request(self, req_context):
        return RequestOffloadingContext()

    def lookup(self, key, req_context):
        found = self.lookups.lookup(key, req_context)
        return LookupResult.RETRY if found is None else LookupResult.HIT if found else LookupResult.MISS

    def on_schedule_end(self, context):
        self.lookups.flush()

    def on_request_finished(self, req_context):
        self.lookups.cleanup(req_context.req_id)

    def submit_store(self, job_metadata):
        self._submit(job_metadata, lambda keys, rows: self.queue.store(keys, rows))

    def submit_load(self, job_metadata):
        self._submit(job_metadata, lambda keys, rows: self.queue.load(keys, rows, wait=self.wait))

    def _submit(self, job, submit):
        keys = list(job.keys)
        try:
            # Each chunk stands alone: it comes with no place and no parent.
            number = submit(tranship.Keys.of_names(keys), [self.rows[int(chunk)] for chunk in job.chunk_ids])
        except Exception as error:
            logger.warning("a job of %d chunks was not taken: %s", len(keys), error)
            self.finished.append(self._failed(job, keys))
            return
        self.jobs[number] = (job, keys)

    def get_finished_jobs(self):
        results, self.finished = self.finished, []
        return results + [self._ended(done) for done in self.queue.drain()]

    def _failed(self, job, keys):
        if job.is_promotion:
            # Else it would be found, and fail, again and again.
            self.lookups.mark_miss(keys)
        return JobResult(job.job_id, False, None, time.monotonic() - job.submit_time, 0)

    def _ended(self, done):
        job, keys = self.jobs.pop(done.job)
        if done.error is not None:
            logger.debug("a job of %d chunks failed: %s", len(keys), done.error)
            return self._failed(job, keys)
        results = done.loaded if done.loaded is not None else done.stored
        good = results.ok
        loaded = None
        if not good and done.loaded is not None:
            loaded = [key for key, result in zip(keys, results) if result == LoadResult.READY]
            self.lookups.mark_miss([key for key, result in zip(keys, results) if result != LoadResult.READY])
            corrupt = sum(result == LoadResult.CORRUPT for result in results)
            logger.warning(
                "%d of %d chunks could not be loaded (%d corrupt), they are computed",
                len(keys) - len(loaded), len(keys), corrupt,
            )  # fmt: skip
        return JobResult(job.job_id, good, loaded or None, done.seconds, done.nbytes)

    def has_pending_work(self):
        return bool(self.jobs or self.finished)

    def drain_jobs(self):
        """Called before vLLM empties its own cache."""
        while self.jobs:
            done = self.queue.wait(next(iter(self.jobs)), _LOOK_SECONDS)
            if done is not None:
                self.finished.append(self._ended(done))
        if self.after_reset == "new":
            self._begin(uuid.uuid4().hex)

    def shutdown(self):
        self.lookups.shutdown()
        self.queue.close()
        self.cache.close()
        # Else vLLM could not unmap its memory.
        self.rows = None


def _weights(name):
    """The tier is not told which revision of a model from the hub is served."""
    if not Path(name).is_dir():
        raise ValueError(
            f"TranshipTier cannot tell which weights of {name} are served: give the tier a weights_version, such as "
            "the commit of the revision"
        )
    return revision(name)


def _identity(tier, salt):
    config = tier._offloading_spec.config
    parallel, groups = config.parallel, config.groups
    device = vllm.platforms.current_platform
    facts = {
        "vllm": vllm.__version__,
        # How a CPU's kernels lay out a page goes by its instructions.
        "device": [device.device_type, torch.backends.cpu.get_cpu_capability() if device.is_cpu() else ""],
        "order": config.kv_cache_layout,
        "canonical": [config.canonical_layout, config.replicated_layout],
        "chunk": [tier.block_size_bytes, config.worker_kv_bytes_per_block, config.cache.blocks_per_chunk],
        "hash": config.cache.tokens_per_hash,
        "groups": [[group.group_id, group.tokens_per_block, list(group.layer_names)] for group in groups],
        "parallel": [parallel.world_size, parallel.pcp_size, parallel.dcp_size],
    }
    return tranship.Identity(
        config.model.name[-500:],
        tier.revision,
        config.model.dtype,
        f"vllm-tier-{config.kv_cache_layout}-{short(facts)}",
        layers=sum(len(group.layer_names) for group in groups),
        tp_size=parallel.tp_size,
        pp_size=parallel.pp_size,
        block_tokens=groups[0].tokens_per_block * config.cache.blocks_per_chunk,
        salt=salt,
    )
