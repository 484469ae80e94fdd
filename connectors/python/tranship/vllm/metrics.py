"""What the connector did, for vLLM's log and its Prometheus metrics."""

import collections

from prometheus_client import Counter, Histogram
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats

LOOKUP, LOAD, STORE = "lookup", "load", "store"


class Stats(KVConnectorStats):
    """Of each operation how long its calls took (seconds), what became of its blocks, and the bytes that moved."""

    def add(self, operation, seconds, blocks, nbytes=0):
        """One call, with the count of blocks for each result."""
        told = self.data.setdefault(operation, {"seconds": [], "blocks": {}, "bytes": 0})
        told["seconds"].append(seconds)
        told["bytes"] += nbytes
        for result, count in blocks.items():
            told["blocks"][result] = told["blocks"].get(result, 0) + count

    def take(self):
        """What was added since the last time; None when nothing was."""
        if self.is_empty():
            return None
        taken = Stats(self.data)
        self.reset()
        return taken

    def reset(self):
        self.data = {}

    def is_empty(self):
        return not self.data

    def aggregate(self, other):
        for operation, more in other.data.items():
            told = self.data.setdefault(operation, {"seconds": [], "blocks": {}, "bytes": 0})
            told["seconds"] = told["seconds"] + more["seconds"]
            told["blocks"] = dict(collections.Counter(told["blocks"]) + collections.Counter(more["blocks"]))
            told["bytes"] += more["bytes"]
        return self

    def reduce(self):
        reduced = {}
        for operation, told in sorted(self.data.items()):
            seconds = sorted(told["seconds"])
            reduced[f"Tranship {operation}s"] = len(seconds)
            reduced[f"{operation} median ms"] = round(seconds[len(seconds) // 2] * 1e3, 3)
            reduced.update({f"{operation} {result}": count for result, count in sorted(told["blocks"].items())})
            if told["bytes"]:
                reduced[f"{operation} MiB"] = round(told["bytes"] / (1 << 20), 1)
        return reduced


class Metrics(KVConnectorPromMetrics):
    """`vllm:tranship_*`, with a label for the operation."""

    def __init__(self, vllm_config, metric_types, labelnames, per_engine_labelvalues):
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        self._seconds = metric_types[Histogram](
            "vllm:tranship_operation_time_seconds",
            "Time of lookups, loads and stores of KV blocks.",
            buckets=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0],
            labelnames=[*labelnames, "operation"],
        )
        self._blocks = metric_types[Counter](
            "vllm:tranship_blocks",
            "KV blocks of lookups (found, missed), loads (ready, late, gone, corrupt, failed) and stores (stored, "
            "exists, in_flight, refused, failed).",
            labelnames=[*labelnames, "operation", "result"],
        )
        self._bytes = metric_types[Counter](
            "vllm:tranship_bytes", "Bytes of KV that loads and stores moved.", labelnames=[*labelnames, "operation"]
        )

    def observe(self, transfer_stats_data, engine_idx=0):
        labels = self.per_engine_labelvalues[engine_idx]
        for operation, told in transfer_stats_data.items():
            seconds = self._seconds.labels(*labels, operation)
            for one in told["seconds"]:
                seconds.observe(one)
            self._bytes.labels(*labels, operation).inc(told["bytes"])
            for result, count in told["blocks"].items():
                self._blocks.labels(*labels, operation, result).inc(count)
