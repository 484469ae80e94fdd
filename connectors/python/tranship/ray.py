"""Ray: a one-sided tensor transport (RDT) for tensors in host memory. No daemon takes part.

    import tranship.ray
    tranship.ray.register()                              # before classes that name it, in the process that makes actors

    @ray.remote
    class Producer:
        @ray.method(tensor_transport="TRANSHIP")
        def make(self): ...

    @ray.remote(enable_tensor_transport=True)
    class Consumer: ...

A producer's tensors are copied once into memory of its engine, which peers of the machine reach through shared memory
and others over tcp, and which nobody changes when the actor goes on with its tensors. Consumers read from there straight
into their own tensors; the producer's threads take no part over shared memory. The memory goes when Ray lets go of the
object.
"""

import os
import secrets
import threading
import time
import weakref
from dataclasses import dataclass, field

import ray
import torch
from ray.experimental import register_tensor_transport
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.experimental.rdt import CommunicatorMetadata, TensorTransportManager, TensorTransportMetadata
from ray.experimental.rdt.tensor_transport_manager import FetchRequest

import tranship

NAME = "TRANSHIP"
# Tensors begin at cache lines.
_ALIGN_BYTES = 64
_TIMEOUT_SECONDS = 30.0
_SECRET = b"tranship/ray/secret"


def register():
    """Makes the transport known to Ray under the name TRANSHIP; again does nothing."""
    try:
        register_tensor_transport(NAME, ["cpu"], TranshipTransport, torch.Tensor)
    except ValueError as error:
        if "already" not in str(error):
            raise


@dataclass
class TranshipMetadata(TensorTransportMetadata):
    """Where an object's tensors are: the descriptor of a window, and the place of each in it."""

    descriptor: bytes | None = None
    places: list[int] = field(default_factory=list)


@dataclass(eq=False)
class _Fetch(FetchRequest):
    transfers: list = field(default_factory=list)

    __eq__, __hash__ = object.__eq__, object.__hash__

    def cancel(self):
        for transfer in list(self.transfers):
            if not transfer.done():
                transfer.cancel()

    def __del__(self):
        # Nobody waits for it any more.
        self.cancel()


class TranshipTransport(TensorTransportManager):
    def __init__(self):
        self._lock = threading.Lock()
        self._open = None
        # By object: the region and the window of what this process has made.
        self._made = {}
        # What this process is fetching.
        self._fetching = weakref.WeakSet()

    def _engine(self):
        """The engine of this process, made when first needed."""
        with self._lock:
            if self._open is None:
                host = os.environ.get("TRANSHIP_RAY_HOST") or ray.util.get_node_ip_address()
                self._open = tranship.Engine(
                    os.environ.get("TRANSHIP_RAY_FABRICS", "shm,tcp"),
                    tcp_listen=f"[{host}]:0" if ":" in host else f"{host}:0",
                    tcp_secret=_secret(),
                    deadline=_timeout(),
                )
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
        places, end = [], 0
        for tensor in rdt_object:
            places.append(end)
            end += -(-_size(tensor) // _ALIGN_BYTES) * _ALIGN_BYTES
        metadata = TranshipMetadata(
            tensor_meta=[(tensor.shape, tensor.dtype) for tensor in rdt_object], tensor_device="cpu", places=places
        )
        if end:
            try:
                region = self._engine().alloc(end, name="ray")
                memory = torch.from_dlpack(region)
                for tensor, at in zip(rdt_object, places):
                    memory[at : at + _size(tensor)].copy_(_bytes(tensor.detach().contiguous()))
                window = region.window(access="read")
            except tranship.Error as error:
                raise RuntimeError(f"{end} bytes of object {obj_id} could not be kept: {error}") from error
            metadata.descriptor = window.descriptor
            with self._lock:
                self._made[obj_id] = (region, window)
        return metadata

    def get_communicator_metadata(self, src_actor, dst_actor, backend=None):
        return CommunicatorMetadata()

    def fetch_multiple_tensors(
        self, obj_id, tensor_transport_metadata, communicator_metadata, target_buffers=None
    ):
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
        fetch = _Fetch(obj_id, tensors)
        if metadata.descriptor is None:
            return fetch
        with self._lock:
            self._fetching.add(fetch)
        try:
            engine = self._engine()
            remote = engine.open(metadata.descriptor)
            for tensor, at in zip(tensors, metadata.places):
                if _size(tensor):
                    into = engine.register(_bytes(tensor.detach()))
                    fetch.transfers.append(_submit(engine, into, remote, at, fetch.transfers))
        except tranship.Error as error:
            fetch.cancel()
            raise RuntimeError(f"object {obj_id} could not be fetched: {error}") from error
        return fetch

    def wait_fetch_complete(self, fetch_request, timeout=-1):
        fetch = fetch_request
        until = None if timeout < 0 else time.monotonic() + timeout
        for transfer in fetch.transfers:
            # Each ends by a deadline of its own; that of the caller may be earlier.
            outcome = transfer.wait(None if until is None else max(0.0, until - time.monotonic()))
            if outcome is None:
                raise TimeoutError(f"object {fetch.obj_id} did not come within {timeout} s")
            if not outcome.done:
                fetch.cancel()
                raise RuntimeError(
                    f"object {fetch.obj_id} could not be fetched: {outcome.reason}; its producer died, or the object was "
                    "let go of"
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
        with self._lock:
            made = self._made.pop(obj_id, None)
        if made is None:
            return
        region, window = made
        try:
            window.revoke()
            region.close()
        except tranship.Error:
            # A peer hangs in the middle of a read. The right is taken back already; the engine keeps the memory until
            # it has proof that nothing moves any more.
            pass

    def abort_transport(self, obj_id, communicator_metadata):
        """Cancels what is under way; who waits for it is told."""
        with self._lock:
            fetching = [fetch for fetch in self._fetching if fetch.obj_id == obj_id]
        for fetch in fetching:
            fetch.cancel()


def _submit(engine, into, remote, at, before):
    """Starts a read; when too many wait already, once one of those is over."""
    while True:
        try:
            return engine.submit_read(into, remote, at=at)
        except tranship.Error as error:
            waiting = next((transfer for transfer in before if not transfer.done()), None)
            if error.kind != "full" or waiting is None:
                raise
            waiting.wait()


def _timeout():
    return float(os.environ.get("TRANSHIP_RAY_TIMEOUT", _TIMEOUT_SECONDS))


def _secret():
    """What all engines of the cluster prove to know; the first process makes it up."""
    _internal_kv_put(_SECRET, secrets.token_hex(32).encode(), overwrite=False)
    return _internal_kv_get(_SECRET).decode()


def _size(tensor):
    return tensor.numel() * tensor.element_size()


def _bytes(tensor):
    """The bytes of a contiguous tensor, in place."""
    return tensor.reshape(-1).view(torch.uint8)
