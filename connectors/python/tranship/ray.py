"""Ray: a tensor transport (RDT) through the daemon, for tensors in host memory.

    import tranship.ray
    tranship.ray.register()                              # before classes that name it, in the process that makes actors

    @ray.remote
    class Producer:
        @ray.method(tensor_transport="TRANSHIP")
        def make(self): ...

    @ray.remote(enable_tensor_transport=True)
    class Consumer: ...

Every process finds its daemon by TRANSHIP_ADDRESS, or is on this machine's. A producer's tensors become pinned blocks;
consumers load them when they come to it, straight into their own, without the producer; the blocks go when Ray lets
go of the object, and after `TRANSHIP_RAY_TTL` seconds (one hour) where a producer died before.
"""

import os
import threading
import uuid
from dataclasses import dataclass, field

import torch
from ray.experimental import register_tensor_transport
from ray.experimental.rdt import CommunicatorMetadata, TensorTransportManager, TensorTransportMetadata
from ray.experimental.rdt.tensor_transport_manager import FetchRequest

import tranship

NAME = "TRANSHIP"
# A tensor is cut into blocks of so many bytes: the arena need not have its size in one piece.
BLOCK_BYTES = 4 << 20
_TTL_SECONDS = 3600.0
_TIMEOUT_SECONDS = 30.0
# How long a load waits for blocks that are on their way from another tier or machine.
_WAIT_SECONDS = 10.0


def register():
    """Makes the transport known to Ray under the name TRANSHIP; again does nothing."""
    try:
        register_tensor_transport(NAME, ["cpu"], TranshipTransport, torch.Tensor)
    except ValueError as error:
        if "already" not in str(error):
            raise


@dataclass
class TranshipMetadata(TensorTransportMetadata):
    """Names the blocks of an object's tensors."""

    nonce: str = ""
    sizes: list[int] = field(default_factory=list)


@dataclass
class _Fetch(FetchRequest):
    queue: object = None
    job: int | None = None


class TranshipTransport(TensorTransportManager):
    def __init__(self):
        self._lock = threading.Lock()
        self._open = None

    def _daemon(self):
        """The connection and the jobs of this process, made when first needed."""
        with self._lock:
            if self._open is None:
                identity = tranship.Identity("ray", layout="rdt")
                cache = tranship.connect(identity=identity, name="ray", timeout=_TIMEOUT_SECONDS)
                self._open = (cache, tranship.Queue(cache))
            return self._open

    def tensor_transport_backend(self):
        return NAME

    @staticmethod
    def is_one_sided():
        return True

    @staticmethod
    def can_abort_transport():
        return True

    def actor_has_tensor_transport(self, actor):
        return True

    def extract_tensor_transport_metadata(self, obj_id, rdt_object):
        cache, _ = self._daemon()
        kept = [tensor.detach().contiguous() for tensor in rdt_object]
        metadata = TranshipMetadata(
            tensor_meta=[(tensor.shape, tensor.dtype) for tensor in rdt_object],
            tensor_device="cpu",
            # An object's number is not unique among clusters that share a daemon.
            nonce=uuid.uuid4().hex,
            sizes=[tensor.numel() * tensor.element_size() for tensor in kept],
        )
        keys = _keys(metadata)
        if len(keys):
            ttl = float(os.environ.get("TRANSHIP_RAY_TTL", _TTL_SECONDS))
            stored = cache.store(keys, _segments(kept), ttl=ttl)
            pinned = cache.pin(keys) if stored.ok else 0
            if pinned < len(keys):
                cache.remove(keys)
                why = stored.why(stored.refused[0]) if stored.refused else "they were evicted at once"
                raise RuntimeError(
                    f"{sum(metadata.sizes)} bytes of object {obj_id} could not be kept in {cache.address}: {why}"
                )
        return metadata

    def get_communicator_metadata(self, src_actor, dst_actor, backend=None):
        return CommunicatorMetadata()

    def fetch_multiple_tensors(
        self, obj_id, tensor_transport_metadata, communicator_metadata, target_buffers=None
    ):
        _, queue = self._daemon()
        metadata = tensor_transport_metadata
        tensors = []
        for i, (shape, dtype) in enumerate(metadata.tensor_meta):
            target = target_buffers[i] if target_buffers else None
            if target is None:
                target = torch.empty(tuple(shape), dtype=dtype)
            elif tuple(target.shape) != tuple(shape) or target.dtype != dtype or not target.is_contiguous():
                raise ValueError(
                    f"buffer {i} of object {obj_id} is {tuple(target.shape)} of {target.dtype}; it has to be a contiguous "
                    f"{tuple(shape)} of {dtype}"
                )
            elif target.device.type != "cpu":
                raise ValueError(f"buffer {i} of object {obj_id} is on {target.device}; TRANSHIP moves host memory")
            tensors.append(target)
        keys = _keys(metadata)
        job = queue.load(keys, _segments(tensors), wait=_WAIT_SECONDS) if len(keys) else None
        return _Fetch(obj_id, tensors, queue, job)

    def wait_fetch_complete(self, fetch_request, timeout=-1):
        fetch = fetch_request
        if fetch.job is None:
            return fetch.tensors
        # Each job has a deadline of its own; that of the caller may be earlier.
        limit = timeout if timeout >= 0 else 2 * (_TIMEOUT_SECONDS + _WAIT_SECONDS)
        done = fetch.queue.wait(fetch.job, limit)
        if done is None:
            raise TimeoutError(f"object {fetch.obj_id} was not loaded within {limit} s")
        fetch.job = None
        if done.error is not None:
            raise RuntimeError(f"object {fetch.obj_id} could not be loaded: {done.error}") from done.error
        if not done.loaded.ok:
            missing = done.loaded.missing
            raise RuntimeError(
                f"{len(missing)} of {len(done.loaded)} blocks of object {fetch.obj_id} are {done.loaded[missing[0]]}; the "
                "daemon lost them, or they outlived TRANSHIP_RAY_TTL"
            )
        return fetch.tensors

    def recv_multiple_tensors(
        self, obj_id, tensor_transport_metadata, communicator_metadata, target_buffers=None
    ):
        return self.wait_fetch_complete(
            self.fetch_multiple_tensors(obj_id, tensor_transport_metadata, communicator_metadata, target_buffers)
        )

    def send_multiple_tensors(self, tensors, tensor_transport_metadata, communicator_metadata):
        raise NotImplementedError("TRANSHIP is one-sided: consumers fetch")

    def garbage_collect(self, obj_id, tensor_transport_meta, tensors):
        keys = _keys(tensor_transport_meta)
        if not len(keys):
            return
        try:
            cache, _ = self._daemon()
            cache.unpin(keys)
            cache.remove(keys)
        except tranship.Error:
            # They go with the daemon, or when their time is over.
            pass

    def abort_transport(self, obj_id, communicator_metadata):
        """Nothing to abort: loads end by themselves, within their deadlines."""


def _pieces(size):
    return [(at, min(BLOCK_BYTES, size - at)) for at in range(0, size, BLOCK_BYTES)]


def _keys(metadata):
    names = [f"{metadata.nonce}/{i}/{at}" for i, size in enumerate(metadata.sizes) for at, _ in _pieces(size)]
    return tranship.Keys.of_names(names)


def _segments(tensors):
    at = [
        [(tensor.data_ptr() + start, size)]
        for tensor in tensors
        for start, size in _pieces(tensor.numel() * tensor.element_size())
    ]
    return tranship.Segments(at, list(tensors))
