"""KV events: which blocks the daemon holds since this engine stored them, in the words of vLLM's own events."""

from dataclasses import dataclass, field

from vllm.distributed.kv_events import MEDIUM_CPU, BlockStored
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorWorkerMetadata
from vllm.v1.core import kv_cache_utils as utils

# `ownership` of the events: whose tier it is.
_OWNER = "tranship"


@dataclass
class Report(KVConnectorWorkerMetadata):
    """Of stores that have ended, their number and the places of the blocks that are there."""

    stored: list[tuple[int, list[int]]] = field(default_factory=list)

    def aggregate(self, other):
        return Report(self.stored + other.stored)


class Offers:
    """Blocks that were given to the workers to store; told of once every worker has its part of them stored."""

    def __init__(self, hash_tokens):
        self._hash_tokens = hash_tokens
        self._number = 0
        self._open = {}
        self._events = []

    def add(self, request, group, start, count, ranks):
        """The number of an offer of `count` blocks of a request from block `start` on."""
        self._number += 1
        self._open[self._number] = _Offer(request, group, start, ranks, set(range(count)))
        return self._number

    def told(self, report):
        for number, there in report.stored:
            offer = self._open.get(number)
            # Offers from before a reset are none of now.
            if offer is None:
                continue
            offer.there.intersection_update(there)
            offer.ranks -= 1
            if offer.ranks == 0:
                del self._open[number]
                self._events.extend(_stored(offer, self._hash_tokens))

    def take(self):
        events, self._events = self._events, []
        return events

    def clear(self):
        self._open.clear()


@dataclass
class _Offer:
    request: object
    group: object
    start: int
    ranks: int
    there: set[int]


def _stored(offer, hash_tokens):
    """One event for each run of blocks."""
    request, size = offer.request, offer.group.block_size
    hashes = utils.resolve_block_hashes(request.block_hashes, hash_tokens, size)
    for start, end in runs(sorted(offer.start + place for place in offer.there)):
        keys = [
            utils.generate_block_hash_extra_keys(request, block * size, (block + 1) * size, 0)[0]
            for block in range(start, end)
        ]
        lora = request.lora_request
        yield BlockStored(
            block_hashes=[utils.maybe_convert_block_hash(hashes[block]) for block in range(start, end)],
            parent_block_hash=utils.maybe_convert_block_hash(hashes[start - 1]) if start else None,
            token_ids=list(request.all_token_ids[start * size : end * size]),
            block_size=size,
            lora_id=lora.adapter_id if lora else None,
            medium=MEDIUM_CPU,
            lora_name=lora.name if lora else None,
            extra_keys=utils.to_event_extra_keys(keys),
            group_idx=offer.group.index,
            ownership=_OWNER,
        )


def runs(numbers):
    """Ascending numbers as ranges (start, end) of consecutive ones."""
    found = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found
