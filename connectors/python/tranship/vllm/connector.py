"""The connector: vLLM's interface, and nothing else."""

from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorRole,
    SupportsHMA,
)

from .metrics import Metrics, Stats
from .scheduler import Scheduler
from .settings import Settings
from .worker import Worker


class TranshipConnector(KVConnectorBase_V1, SupportsHMA):
    """KV blocks from and to a Tranship daemon, keyed by vLLM's block hashes under the model's identity."""

    def __init__(self, vllm_config, role, kv_cache_config):
        super().__init__(vllm_config, role, kv_cache_config)
        settings = Settings.of(self._kv_transfer_config.kv_connector_extra_config or {})
        self._scheduler = self._worker = None
        if role == KVConnectorRole.SCHEDULER:
            self._scheduler = Scheduler(vllm_config, kv_cache_config, settings)
        else:
            self._worker = Worker(vllm_config, kv_cache_config, settings)

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config):
        return "LBHNC"

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config):
        # Layers are told one by one only there.
        return extra_config.get("save") == "layerwise"

    @classmethod
    def build_kv_connector_stats(cls, data=None):
        return Stats(data or {})

    @classmethod
    def build_prom_metrics(cls, vllm_config, metric_types, labelnames, per_engine_labelvalues):
        return Metrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    def get_kv_connector_stats(self):
        return (self._scheduler or self._worker).stats.take()

    # The scheduler's side.

    def set_xfer_handshake_metadata_pp_aware(self, metadata):
        self._scheduler.meet([handshake.identities for _, handshake in sorted(metadata.items())])

    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        return self._scheduler.matched(request, num_computed_tokens)

    def update_state_after_alloc(self, request, blocks, num_external_tokens):
        self._scheduler.allocated(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output):
        return self._scheduler.step(scheduler_output)

    def request_finished_all_groups(self, request, block_ids) -> tuple[bool, dict[str, Any] | None]:
        return self._scheduler.finished(request), None

    def request_finished(self, request, block_ids):
        return self.request_finished_all_groups(request, (block_ids,))

    def update_connector_output(self, connector_output):
        self._scheduler.told(connector_output)

    def has_pending_block_frees(self):
        return bool(self._scheduler.held)

    def has_pending_push_work(self):
        # Steps go on when nothing else is to be done, until the pages of finished requests are free.
        return bool(self._scheduler.held)

    def take_events(self):
        return () if self._scheduler.offers is None else self._scheduler.offers.take()

    def reset_cache(self):
        return self._scheduler.reset()

    # A worker's side.

    def register_kv_caches(self, kv_caches):
        self._worker.register(kv_caches)

    def get_handshake_metadata(self):
        return self._worker.handshake()

    def handle_preemptions(self, kv_connector_metadata):
        self._worker.preempted(kv_connector_metadata)

    def start_load_kv(self, forward_context, **kwargs):
        self._worker.load(self._get_connector_metadata())

    def wait_for_layer_load(self, layer_name):
        # A load that is waited for is over when start_load_kv returns: bytes are checked by block.
        return

    def save_kv_layer(self, layer_name, kv_layer, attn_metadata, **kwargs):
        if self.has_connector_metadata():
            self._worker.layer(self._get_connector_metadata(), layer_name)

    def wait_for_save(self):
        self._worker.store(self._get_connector_metadata())

    def get_finished(self, finished_req_ids):
        return self._worker.finished(finished_req_ids)

    def build_connector_worker_meta(self):
        return self._worker.reported()

    def get_block_ids_with_load_errors(self):
        return self._worker.errors()

    def shutdown(self):
        for side in (self._scheduler, self._worker):
            if side is not None:
                side.close()
