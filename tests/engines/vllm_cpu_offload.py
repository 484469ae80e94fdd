"""For tests: vLLM's tiered offloading on a host without a GPU.

vLLM's own specification refuses CPUs only because its worker drives CUDA streams; this one's worker copies.
"""

import os
import pickle

from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult
from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

from tranship.vllm_tier import TranshipTier


class Worker(OffloadingWorker):
    """Copies when told; every job has ended when its submission returns."""

    def __init__(self, kv_caches, blocks_per_chunk, region):
        self.groups, self.blocks_per_chunk = kv_caches.group_data_refs, blocks_per_chunk
        self.device = [each.tensor for each in kv_caches.tensors]
        self.host = [region.create_next_worker_view(each.shape[1] * blocks_per_chunk) for each in self.device]
        self.region, self.ended = region, []

    def submit_store(self, job_id, src_spec, dst_spec):
        return self._copy(job_id, src_spec, dst_spec, lambda device, host: host.copy_(device))

    def submit_load(self, job_id, src_spec, dst_spec):
        return self._copy(job_id, dst_spec, src_spec, lambda device, host: device.copy_(host))

    def _copy(self, job, blocks, chunks, copy):
        at = of_group = moved = 0
        for group, count in enumerate(blocks.group_sizes):
            if not count:
                continue
            skipped = blocks.block_indices[group] % self.blocks_per_chunk
            for i in range(count):
                chunk, place = divmod(skipped + i, self.blocks_per_chunk)
                block, row = int(blocks.block_ids[at + i]), int(chunks.block_ids[of_group + chunk])
                for tensor in {ref.tensor_idx for ref in self.groups[group]}:
                    size = self.device[tensor].shape[1]
                    copy(self.device[tensor][block], self.host[tensor][row, place * size : (place + 1) * size])
                    moved += size
            at += count
            of_group += -(-(skipped + count) // self.blocks_per_chunk)
        self.ended.append(TransferResult(job, True, moved, 0.0))
        return True

    def get_finished(self):
        ended, self.ended = self.ended, []
        return ended

    def wait(self, job_ids):
        pass

    def shutdown(self):
        self.host = []
        # Takes the file away that all views were mapped from.
        self.region.cleanup()


class CpuTieringSpec(TieringOffloadingSpec):
    def get_worker(self, kv_caches):
        if not self._worker:
            region = SharedOffloadRegion(
                engine_id=self._engine_id, num_chunks=self.num_chunks, rank=self.config.parallel.rank,
                kv_bytes_per_chunk=self.kv_bytes_per_chunk, cpu_page_size=self.cpu_page_size_per_worker,
            )  # fmt: skip
            self._worker = Worker(kv_caches, self.blocks_per_chunk, region)
        return self._worker


class WatchedTier(TranshipTier):
    """Writes down what it stored, so that a test can damage it."""

    def _ended(self, done):
        _, keys = self.jobs[done.job]
        if done.stored is not None:
            with open(os.environ["TRANSHIP_TEST_STORED"], "ab") as file:
                pickle.dump((self.identity, [bytes(key) for key in keys]), file)
        return super()._ended(done)
