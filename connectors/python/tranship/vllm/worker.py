"""A worker's side: pages to blocks and back, on threads that never take the interpreter lock."""

import logging
from dataclasses import dataclass

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorHandshakeMetadata

import tranship
from tranship import LoadResult, StoreResult

from . import identity
from .events import Report
from .metrics import LOAD, STORE, Stats

logger = logging.getLogger("vllm.tranship")

# Every call of a job has a deadline; this is only how often a wait for one looks again.
_LOOK_SECONDS = 1.0
_LOADED = {
    "ready": LoadResult.READY, "late": LoadResult.LATE, "gone": LoadResult.GONE, "corrupt": LoadResult.CORRUPT,
    "failed": LoadResult.FAILED,
}  # fmt: skip
_STORED = {
    "stored": StoreResult.STORED, "exists": StoreResult.EXISTS, "in_flight": StoreResult.IN_FLIGHT,
    "refused": StoreResult.REFUSED,
}  # fmt: skip


@dataclass
class Handshake(KVConnectorHandshakeMetadata):
    """A worker's identities, one a group."""

    identities: list[tranship.Identity]


class Worker:
    def __init__(self, vllm_config, kv_cache_config, settings):
        self.config, self.kv_cache_config, self.settings = vllm_config, kv_cache_config, settings
        self.groups = identity.groups(kv_cache_config)
        self.epoch = ""
        self.caches = self.queues = self.pages = None
        self.identities = []
        # Jobs under way: (queue, job) -> move.
        self.loading, self.storing = {}, {}
        self.fills = []
        self.received, self.sent, self.bad = set(), set(), set()
        # Requests with stores, and those that have finished and wait for theirs.
        self.saving, self.finishing = {}, set()
        self.report, self.stats = [], Stats()
        self.cache = tranship.connect(
            settings.address, tenant=settings.tenant, token=settings.token, secret=settings.secret,
            name="vllm worker", timeout=settings.timeout,
        )

    def register(self, caches):
        self.caches = caches
        self.pages = [tranship.Pages([_host(caches[name]) for name in group.layers]) for group in self.groups]
        self.layers = {name: (g, i) for g, group in enumerate(self.groups) for i, name in enumerate(group.layers)}
        self._open()

    def _open(self):
        self.identities = identity.identities(
            self.config, self.kv_cache_config, self.caches, self.settings, self.epoch
        )
        self.queues = [
            tranship.Queue(self.cache.with_identity(one), threads=self.settings.threads) for one in self.identities
        ]

    def handshake(self):
        return Handshake(self.identities) if self.identities else None

    def begin(self, step):
        if step.epoch != self.epoch:
            self.wait_all()
            self.epoch = step.epoch
            self._open()

    def preempted(self, step):
        """Pages of preempted requests are about to be written: what is stored from them must be over."""
        if step.preempted:
            while self.storing:
                self._take(wait=True)

    def load(self, step):
        self.begin(step)
        by_request = {}
        for move in step.loads:
            by_request.setdefault(move.request, []).append(move)
        for request, moves in by_request.items():
            jobs = {}
            for move in moves:
                queue = self.queues[move.group]
                jobs[move.group, queue.load(move.keys, self.pages[move.group][move.pages])] = move
            # All jobs of a request count down together.
            rest = set(jobs)
            self.loading.update({job: (request, move, rest) for job, move in jobs.items()})
        if self.settings.load == "sync":
            while self.loading:
                self._take(wait=True)
            # A load that was waited for is no news.
            self.received.clear()

    def store(self, step):
        self.begin(step)
        if self.settings.save == "layerwise":
            self._layers(step)
            for move, filling, told in self.fills:
                for layer in range(len(self.groups[move.group].layers)):
                    if layer not in told:
                        filling.layer(layer)
                self._storing(move, filling.finish())
            self.fills = []
        else:
            for move in step.stores:
                queue = self.queues[move.group]
                self._storing(move, queue.store(move.keys, self.pages[move.group][move.pages]))
        if self.settings.save == "sync":
            while self.storing:
                self._take(wait=True)

    def layer(self, step, name):
        """A layer's pages were written."""
        if self.settings.save != "layerwise" or not step.stores:
            return
        self.begin(step)
        self._layers(step)
        group, layer = self.layers.get(name, (None, None))
        for move, filling, told in self.fills:
            if move.group == group and layer not in told:
                told.add(layer)
                filling.layer(layer)

    def _layers(self, step):
        if not self.fills:
            self.fills = [
                (move, self.queues[move.group].begin(move.keys, self.pages[move.group][move.pages]), set())
                for move in step.stores
            ]

    def _storing(self, move, job):
        self.storing[move.group, job] = move
        self.saving.setdefault(move.request, set()).add((move.group, job))

    def _take(self, wait=False):
        """Takes what has ended; waits for one job first if told to."""
        if wait:
            group, job = next(iter(self.loading or self.storing))
            done = self.queues[group].wait(job, _LOOK_SECONDS)
            if done is not None:
                self._ended(group, done)
        for group, queue in enumerate(self.queues or ()):
            for done in queue.drain():
                self._ended(group, done)

    def _ended(self, group, done):
        job = (group, done.job)
        if job in self.storing:
            move = self.storing.pop(job)
            jobs = self.saving[move.request]
            jobs.discard(job)
            if not jobs and move.request in self.finishing:
                self._over(move.request)
            self.stats.add(STORE, done.seconds, _counted(done.stored, _STORED, len(move.keys)), done.nbytes)
            if done.error is not None:
                logger.debug("a store of %d blocks failed: %s", len(move.keys), done.error)
            if move.offer is not None:
                stored = done.stored or ()
                there = [i for i, one in enumerate(stored) if one in (StoreResult.STORED, StoreResult.EXISTS)]
                self.report.append((move.offer, there))
            return
        request, move, rest = self.loading.pop(job)
        loaded = done.loaded
        self.stats.add(LOAD, done.seconds, _counted(loaded, _LOADED, len(move.keys)), done.nbytes)
        if loaded is None:
            logger.warning("a load of %d blocks failed, they are computed: %s", len(move.keys), done.error)
            self.bad.update(move.pages)
        elif not loaded.ok:
            corrupt = [i for i in loaded.missing if loaded[i] == LoadResult.CORRUPT]
            logger.warning(
                "%d of %d blocks could not be loaded (%d corrupt), they are computed",
                len(loaded.missing), len(loaded), len(corrupt),
            )
            self.bad.update(move.pages[i] for i in loaded.missing)
        rest.discard(job)
        if not rest:
            self.received.add(request)

    def _over(self, request):
        self.saving.pop(request, None)
        self.finishing.discard(request)
        self.sent.add(request)

    def finished(self, requests):
        """Requests that have ended: their pages are freed once their stores are over."""
        self._take()
        for request in requests:
            if request in self.saving:
                self.finishing.add(request)
                if not self.saving[request]:
                    self._over(request)
        sent, self.sent = self.sent, set()
        received, self.received = self.received, set()
        return sent or None, received or None

    def reported(self):
        """Stores that have ended, of those the scheduler wants to be told of."""
        told, self.report = self.report, []
        return Report(told) if told else None

    def errors(self):
        bad, self.bad = self.bad, set()
        return bad

    def wait_all(self):
        while self.loading or self.storing:
            self._take(wait=True)

    def close(self):
        for queue in self.queues or ():
            queue.close()
        self.cache.close()


def _counted(results, names, count):
    """How many blocks have which result; all failed where there are none."""
    if results is None:
        return {"failed": count}
    results = list(results)
    counts = {name: results.count(result) for name, result in names.items()}
    return {name: count for name, count in counts.items() if count}


def _host(tensor):
    """The tensor, to be read as bytes: DLPack does not know every element type."""
    if tensor.device.type != "cpu":
        raise ValueError(
            f"the KV cache is on {tensor.device}; TranshipConnector moves host memory only in this version"
        )
    import torch

    return tensor.view(torch.uint8) if tensor.dtype != torch.uint8 else tensor
