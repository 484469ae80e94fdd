"""LMCache: an L2 adapter of its multi-process server.

    lmcache server --l1-size-gb 8 --l2-adapter '{"type": "plugin", "module_path": "tranship.lmcache",
        "class_name": "TranshipL2Adapter"}'

or, where one server keeps KV of one layout only, the same as a native plug-in, which is not told layouts and has to be given it:

    --l2-adapter '{"type": "native_plugin", "module_path": "tranship.lmcache", "class_name": "TranshipClient",
        "adapter_params": {"layout": "bfloat16"}}'

`adapter_params` knows: `address`, `tenant`, `token`, `secret`, `timeout` (seconds a call may take), `wait` (seconds
a load waits for blocks of slower tiers), `threads`, `weights_version`, `salt`, `max_capacity_gb` (LMCache's own
accounting), and `serde` (true where the adapter is given one: objects are then other bytes than the KV's).
"""

import itertools
import logging
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version

from lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter import NativeConnectorL2Adapter

import tranship
from tranship import LoadResult, StoreResult
from tranship._revision import revision, short

logger = logging.getLogger("lmcache.tranship")

_SETTINGS = {
    "address": None, "tenant": "default", "token": "", "secret": None, "timeout": 1.0, "wait": 1.0, "threads": 2,
    "weights_version": "", "salt": "", "max_capacity_gb": 0, "serde": False,
}  # fmt: skip
_THERE = (StoreResult.STORED, StoreResult.EXISTS, StoreResult.IN_FLIGHT)
_SERIALIZED = "serialized"


class TranshipL2Adapter(NativeConnectorL2Adapter):
    """LMCache's bridge to a client by names, and what the names leave out: how the bytes are laid out."""

    def __init__(self, params, l1_memory_desc=None):
        settings = _checked(params)
        self._serde = settings["serde"]
        self._told = False
        super().__init__(_Client(settings), max_capacity_gb=settings["max_capacity_gb"], type_name="tranship")

    def submit_store_task(self, keys, objects):
        with self._client.laid_out(list(map(self._of_object, objects))):
            return super().submit_store_task(keys, objects)

    def submit_load_task(self, keys, objects):
        with self._client.laid_out(list(map(self._of_object, objects))):
            return super().submit_load_task(keys, objects)

    def submit_lookup_and_lock_task(self, keys, group_layout_descs):
        layouts = {
            group: _SERIALIZED if self._serde else _layout(desc.shapes, desc.dtypes)
            for group, desc in (group_layout_descs or {}).items()
        }
        # A group that is not described is never found.
        with self._client.laid_out([layouts.get(key.object_group_id) for key in keys]):
            return super().submit_lookup_and_lock_task(keys, group_layout_descs)

    def _of_object(self, memory):
        if self._serde:
            return _SERIALIZED
        shapes = memory.get_shapes()
        if len(shapes) == 1 and len(shapes[0]) == 1 and not self._told:
            self._told = True
            logger.warning("objects are flat, as a serde's are; with one, set adapter_params.serde, or all are misses")
        return _layout(shapes, memory.get_dtypes())


def _checked(params):
    if unknown := sorted(set(params) - set(_SETTINGS)):
        raise ValueError(f"adapter_params: {unknown} unknown; there are {sorted(_SETTINGS)}")
    return {**_SETTINGS, **params}


def _layout(shapes, dtypes):
    return "+".join(f"{dtype}{list(shape)}" for shape, dtype in zip(shapes, dtypes))


class _Client:
    """What `NativeConnectorL2Adapter` drives. Nothing here waits for the daemon but threads of its own."""

    def __init__(self, settings):
        self.settings = settings
        facts = {"lmcache": version("lmcache"), "serde": bool(settings["serde"])}
        # Model, rank, group, chunk and layout are in each name.
        identity = tranship.Identity(
            "lmcache", "by-name", "bytes", f"lmcache-{short(facts)}", salt=settings["salt"]
        )  # fmt: skip
        self.cache = tranship.connect(
            settings["address"], identity=identity, tenant=settings["tenant"], token=settings["token"],
            secret=settings["secret"], name="lmcache", timeout=settings["timeout"],
        )  # fmt: skip
        self.guard = tranship.Guard(self.cache)
        self.queue = tranship.Queue(self.cache, threads=settings["threads"])
        # Questions are short: one thread asks them in turn. Their numbers are apart from those of jobs.
        self.asker = ThreadPoolExecutor(1, "tranship-lookup")
        self.numbers = itertools.count(-1, -1)
        self.answers = deque()
        self.layouts = threading.local()
        self.revisions = {}

    @contextmanager
    def laid_out(self, layouts):
        """The layouts of the keys of the call inside, in this thread."""
        self.layouts.now = layouts
        try:
            yield
        finally:
            self.layouts.now = None

    def event_fd(self):
        return self.queue.fileno()

    def submit_batch_set(self, keys, views):
        return self._job(lambda: self.queue.store(self._keys(keys), views), len(keys))

    def submit_batch_get(self, keys, views):
        return self._job(lambda: self.queue.load(self._keys(keys), views, wait=self.settings["wait"]), len(keys))

    def submit_batch_exists(self, keys):
        return self._question(lambda names: self.guard.present(names), keys)

    def submit_batch_delete(self, keys):
        # The layouts of what is to be deleted are not told, and so not the names: the daemon evicts by itself.
        return self._answered(False, "blocks are evicted by the daemon", [False] * len(keys))

    def _layouts(self, count):
        """The layout of each key of the call that is made; None where it is not known."""
        return self.layouts.now

    def drain_completions(self):
        done = [self._ended(job) for job in self.queue.drain()]
        while self.answers:
            done.append(self.answers.popleft())
        return done

    def close(self):
        self.asker.shutdown()
        self.queue.close()
        self.cache.close()

    def _keys(self, names):
        """Names with what they leave out: the weights, and the layout of the bytes."""
        layouts = self._layouts(len(names))
        if layouts is None or len(layouts) != len(names) or None in layouts:
            raise ValueError("the layout of an object is not known")
        full = [f"{self._weights(name)}\0{layout}\0{name}" for name, layout in zip(names, layouts)]
        return tranship.Keys.of_names(full)

    def _weights(self, name):
        if self.settings["weights_version"]:
            return self.settings["weights_version"]
        model = name.partition("@")[0]
        if model not in self.revisions:
            try:
                self.revisions[model] = revision(model)
            except Exception as error:
                logger.warning(
                    "the weights of %s cannot be told (%s): all its chunks are misses; set weights_version", model, error
                )
                self.revisions[model] = None
        if self.revisions[model] is None:
            raise ValueError(f"the weights of {model} cannot be told; set weights_version")
        return self.revisions[model]

    def _job(self, submit, count):
        try:
            return submit()
        except Exception as error:
            logger.debug("%d objects are misses: %s", count, error)
            return self._answered(False, str(error), [False] * count)

    def _question(self, ask, names):
        try:
            keys = self._keys(names)
        except ValueError as error:
            return self._answered(True, str(error), [False] * len(names))
        number = next(self.numbers)

        def run():
            try:
                self._answer(number, True, "", ask(keys))
            except Exception as error:
                self._answer(number, False, str(error), [False] * len(names))

        self.asker.submit(run)
        return number

    def _answered(self, good, text, flags):
        number = next(self.numbers)
        self._answer(number, good, text, flags)
        return number

    def _answer(self, number, good, text, flags):
        self.answers.append((number, good, text, flags))
        os.eventfd_write(self.queue.fileno(), 1)

    def _ended(self, done):
        if done.stored is not None:
            flags = [result in _THERE for result in done.stored]
        elif done.loaded is not None:
            flags = [result == LoadResult.READY for result in done.loaded]
            if corrupt := sum(result == LoadResult.CORRUPT for result in done.loaded):
                logger.warning("%d of %d objects were corrupt, they are computed", corrupt, len(flags))
        else:
            # An empty list: no object of the job is there, however many it has.
            return done.job, False, str(done.error), []
        return done.job, all(flags), "" if all(flags) else "not all objects", flags


class TranshipClient(_Client):
    """The client alone, for LMCache's `native_plugin`. All objects are of the layout that it is given."""

    def __init__(self, *, layout="", **params):
        if not layout:
            raise ValueError(
                "adapter_params: give a layout, such as bfloat16: a native_plugin is not told how objects are laid out, "
                "and KV of another layout must not be found; or use type plugin with TranshipL2Adapter, which is told"
            )
        self._layout = str(layout)
        super().__init__(_checked(params))

    def _layouts(self, count):
        return [self._layout] * count

    def submit_batch_delete(self, keys):
        def remove(names):
            self.cache.remove(names)
            return [True] * len(names)

        return self._question(remove, keys)
