"""The scheduler's side: what can be loaded, and what is to be loaded and stored in each step."""

import logging
import math
import time
import uuid
from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata

import tranship

from . import identity
from .events import Offers, runs
from .metrics import LOOKUP, Stats

logger = logging.getLogger("vllm.tranship")

_NULL_BLOCK = 0


@dataclass
class Move:
    """Blocks of one group of one request."""

    request: str
    group: int
    keys: tranship.Keys
    pages: list[int]
    # Of a store that the scheduler wants to be told of.
    offer: int | None = None


@dataclass
class Step(KVConnectorMetadata):
    """What the workers do in one step."""

    loads: list[Move] = field(default_factory=list)
    stores: list[Move] = field(default_factory=list)
    preempted: bool = False
    epoch: str = ""


class _Request:
    def __init__(self, request, context):
        self.request, self.context = request, context
        # Of each group, as far as known.
        self.keys = {}
        # Tokens that were there before vLLM asked, and tokens that were promised.
        self.local = self.external = 0
        self.pages = None
        # Pages that are loaded into.
        self.loading = frozenset()
        # Blocks of each group that were offered.
        self.stored = None
        self.saving = False


class Scheduler:
    def __init__(self, vllm_config, kv_cache_config, settings):
        self.config, self.settings = vllm_config, settings
        self.groups = identity.groups(kv_cache_config)
        self.hash_tokens = kv_cache_config.hash_block_size or vllm_config.cache_config.block_size
        self.align = math.lcm(*(group.block_size for group in self.groups))
        for group in self.groups:
            if group.block_size % self.hash_tokens:
                raise ValueError(
                    f"block size {group.block_size} is no multiple of the hash block size {self.hash_tokens}"
                )
        self.epoch = ""
        self.identities, self.ranks = [], []
        self.requests, self.loads = {}, {}
        # Finished, but their pages are still read by stores.
        self.held = set()
        self.stats = Stats()
        events = vllm_config.kv_events_config
        self.offers = Offers(self.hash_tokens) if events is not None and events.enable_kv_cache_events else None
        if vllm_config.kv_transfer_config.kv_load_failure_policy != "recompute":
            logger.warning(
                "kv_load_failure_policy is %r: a block that leaves the cache between lookup and load fails its "
                "request; set it to 'recompute'", vllm_config.kv_transfer_config.kv_load_failure_policy
            )
        # Some attention kernels cannot go on from a prefix; vLLM turns its own cache off for them.
        self.loads_prefixes = bool(vllm_config.cache_config.enable_prefix_caching)
        if not self.loads_prefixes:
            logger.warning("prefix caching is off, for vLLM or this model cannot use it: blocks are stored but not loaded")
        self.cache = tranship.connect(
            settings.address, tenant=settings.tenant, token=settings.token, secret=settings.secret,
            name="vllm scheduler", timeout=settings.timeout,
        )

    def meet(self, identities):
        """The identities of every worker, one a group."""
        self.identities = identities
        self._open()

    def _open(self):
        self.ranks = [
            [tranship.Guard(self.cache.with_identity(one)) for one in worker] for worker in self.identities
        ]

    def _keys(self, state, group):
        """The keys of all full blocks of a group, so far."""
        every = group.block_size // self.hash_tokens
        hashes = state.request.block_hashes[every - 1 :: every]
        known = state.keys.get(group.index)
        if known is None or len(known) < len(hashes):
            known = state.keys[group.index] = tranship.Keys.of_hashes(list(hashes), state.context)
        return known

    def _state(self, request):
        state = self.requests.get(request.request_id)
        if state is None:
            state = _Request(request, identity.context(self.config, request))
            self.requests[request.request_id] = state
        return state

    def matched(self, request, computed):
        state = self._state(request)
        if not self.ranks or not self.loads_prefixes or request.skip_reading_prefix_cache:
            return 0, False
        asynchronous = self.settings.load == "async"
        # One token at least is computed in the same step where the load is waited for.
        limit = request.num_tokens if asynchronous else request.num_tokens - 1
        limit = limit // self.align * self.align
        if limit <= computed:
            state.local, state.external = computed, 0
            return 0, False
        start = time.monotonic()
        tokens = self._prefix(state, computed, limit)
        found, asked = max(0, tokens - computed) // self.align, (limit - computed) // self.align
        self.stats.add(LOOKUP, time.monotonic() - start, {"found": found, "missed": asked - found})
        state.local, state.external = computed, max(0, tokens - computed)
        return state.external, asynchronous and state.external > 0

    def _prefix(self, state, computed, limit):
        """How long the longest prefix is that every rank can load, tokens."""
        sliding = []
        for group in self.groups:
            first = computed // group.block_size
            keys = self._keys(state, group)[first : limit // group.block_size]
            if len(keys) == 0:
                return computed
            for rank in self.ranks:
                if group.window is None:
                    limit = min(limit, (first + rank[group.index].lookup(keys)) * group.block_size)
                else:
                    sliding.append((group, first, rank[group.index].present(keys)))
            if limit <= computed:
                return computed
        limit = limit // self.align * self.align
        while limit > computed:
            if all(
                all(present[max(0, group.first_needed(limit) - first) : limit // group.block_size - first])
                for group, first, present in sliding
            ):
                return limit
            limit -= self.align
        return computed

    def allocated(self, request, blocks, external):
        if external <= 0:
            return
        state = self._state(request)
        pages, moves = blocks.get_block_ids(), []
        for group in self.groups:
            first, last = state.local // group.block_size, (state.local + external) // group.block_size
            first = max(first, group.first_needed(state.local + external))
            keys, ids = self._keys(state, group)[first:last], pages[group.index][first:last]
            # What a window has left behind has no page.
            keep = [i for i, page in enumerate(ids) if page != _NULL_BLOCK]
            if len(keep) < len(ids):
                hashes = sum((keys[i : i + 1] for i in keep[1:]), keys[keep[0] : keep[0] + 1]) if keep else keys[:0]
                keys, ids = hashes, [ids[i] for i in keep]
            if ids:
                moves.append(Move(request.request_id, group.index, keys, list(ids)))
        state.loading = {page for move in moves for page in move.pages}
        self.loads[request.request_id] = moves

    def step(self, output):
        step = Step(epoch=self.epoch, preempted=bool(output.preempted_req_ids))
        for moves in self.loads.values():
            step.loads.extend(moves)
        self.loads.clear()
        if self.settings.save == "off":
            return step
        for new in output.scheduled_new_reqs:
            state = self.requests.get(new.req_id)
            if state is not None:
                state.pages = [list(ids) for ids in new.block_ids]
                self._store(step, state, new.req_id, new.num_computed_tokens + output.num_scheduled_tokens[new.req_id])
        cached = output.scheduled_cached_reqs
        for index, name in enumerate(cached.req_ids):
            state = self.requests.get(name)
            if state is None:
                continue
            added = cached.new_block_ids[index]
            if name in cached.resumed_req_ids or state.pages is None:
                state.pages = [[] for _ in self.groups]
            for pages, more in zip(state.pages, added or ()):
                pages.extend(more)
            tokens = cached.num_computed_tokens[index] + output.num_scheduled_tokens[name]
            self._store(step, state, name, tokens)
        return step

    def _store(self, step, state, name, tokens):
        if state.stored is None:
            state.stored = [0] * len(self.groups)
        for place, group in enumerate(self.groups):
            keys, pages = self._keys(state, group), state.pages[place]
            first, last = state.stored[place], min(tokens // group.block_size, len(keys), len(pages))
            # What was loaded is there.
            skip = range(state.local // group.block_size, (state.local + state.external) // group.block_size)
            todo = [i for i in range(first, last) if i not in skip and pages[i] != _NULL_BLOCK]
            for start, end in runs(todo):
                offer = None
                if self.offers is not None:
                    offer = self.offers.add(state.request, group, start, end - start, len(self.ranks))
                step.stores.append(Move(name, place, keys[start:end], pages[start:end], offer))
                state.saving = True
            state.stored[place] = max(first, last)

    def finished(self, request):
        state = self.requests.pop(request.request_id, None)
        self.loads.pop(request.request_id, None)
        if state is None or not state.saving:
            return False
        self.held.add(request.request_id)
        return True

    def told(self, output):
        if self.offers is not None and output.kv_connector_worker_meta is not None:
            self.offers.told(output.kv_connector_worker_meta)
        self.held.difference_update(output.finished_sending or ())
        if bad := output.invalid_block_ids:
            for state in self.requests.values():
                if not state.loading.isdisjoint(bad):
                    # Computed again from there on, and worth storing again.
                    state.external, state.stored = 0, None

    def reset(self):
        """Nothing stored so far is used by this engine again: its weights may have changed."""
        self.epoch = uuid.uuid4().hex
        self.identities = [
            [identity.with_epoch(one, self.settings.salt + self.epoch) for one in worker] for worker in self.identities
        ]
        self._open()
        if self.offers is not None:
            self.offers.clear()
        return True

    def close(self):
        self.cache.close()
