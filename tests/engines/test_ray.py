"""Ray's direct transport through tranship.ray: actors in processes of their own."""

import os

import fresh
import pytest

pytest.importorskip("ray", reason="Ray is not installed in this environment")

_kept = {}


def start():
    """Ray on this machine, a producer and a consumer."""
    import ray
    import torch

    import tranship.ray

    tranship.ray.register()
    tranship.ray.register()

    @ray.remote(num_cpus=0.5)
    class Producer:
        @ray.method(tensor_transport="TRANSHIP")
        def make(self, seed, count):
            torch.manual_seed(seed)
            return {
                "a": torch.randn(count),
                "b": torch.randn(64, 32).to(torch.bfloat16).t(),
                "c": torch.tensor(7.5),
                "d": torch.empty(0, 3),
                "note": f"seed {seed}",
            }

        def put(self, count):
            self.kept = torch.arange(count, dtype=torch.float32)
            return [ray.put(self.kept, _tensor_transport="TRANSHIP")]

        def idle(self):
            """What the process has of the transport's memory; calls are when it hears of objects that are gone."""
            return mapped()

        def process(self):
            return os.getpid()

    @ray.remote(enable_tensor_transport=True, num_cpus=0.5)
    class Consumer:
        def same(self, given, seed, count):
            torch.manual_seed(seed)
            a, b = torch.randn(count), torch.randn(64, 32).to(torch.bfloat16).t()
            return [
                torch.equal(given["a"], a), torch.equal(given["b"], b), given["c"].item(), tuple(given["d"].shape),
                given["note"],
            ]  # fmt: skip

        def into(self, refs, count):
            from ray.experimental.rdt import set_target_for_ref

            target = torch.zeros(count)
            set_target_for_ref(refs[0], [target])
            got = ray.get(refs[0])
            return [got.data_ptr() == target.data_ptr(), torch.equal(target, torch.arange(count, dtype=torch.float32))]

        def fetch(self, refs):
            return ray.get(refs[0]).sum().item()

        def process(self):
            return os.getpid()

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=100 << 20)
    _kept.update(ray=ray, make=Producer, producer=Producer.remote(), consumer=Consumer.remote())


def stop():
    if "ray" in _kept:
        _kept["ray"].shutdown()


def exchange(seed, count):
    """What the consumer says of the producer's tensors, and what the driver itself gets."""
    import torch

    ray = _kept["ray"]
    ref = _kept["producer"].make.remote(seed, count)
    said = ray.get(_kept["consumer"].same.remote(ref, seed, count))
    torch.manual_seed(seed)
    own = torch.equal(ray.get(ref)["a"], torch.randn(count))
    _kept["ref"] = ref
    return [said, own]


def into(count):
    ray = _kept["ray"]
    return ray.get(_kept["consumer"].into.remote(ray.get(_kept["producer"].put.remote(count)), count))


def let_go():
    _kept.pop("ref", None)


def idle():
    """The producer's memory of the transport."""
    ray = _kept["ray"]
    return ray.get(_kept["producer"].idle.remote())


def mapped():
    """Memory of the transport's in this process."""
    with open("/proc/self/maps") as maps:
        return sum("/memfd:ray" in line for line in maps)


def orphaned():
    """What a consumer's task says whose tensors died with their producer, how long that took, and whether the consumer
    is the one of before."""
    import signal
    import time

    ray = _kept["ray"]
    before = ray.get(_kept["consumer"].process.remote())
    refs = ray.get(_kept["producer"].put.remote(1000))
    process = ray.get(_kept["producer"].process.remote())
    said = None
    os.kill(process, signal.SIGKILL)
    began = time.monotonic()
    try:
        ray.get(_kept["consumer"].fetch.remote(refs), timeout=120)
    except Exception as error:
        said = str(error)
    took = time.monotonic() - began
    after = ray.get(_kept["consumer"].process.remote(), timeout=60)
    _kept["producer"] = _kept["make"].remote()
    return [said, took, before == after]


@pytest.mark.parametrize("fabrics", ["shm,tcp", "tcp"])
def test_actors_pass_tensors_memory_to_memory(tmp_path, fabrics):
    seen = [[True, True, 7.5, [0, 3], "seed 3"], True]
    count = (9 << 20) // 4
    before = set(os.listdir("/dev/shm"))
    with fresh.Process(__file__, tmp_path / "ray.log", TRANSHIP_RAY_FABRICS=fabrics, TRANSHIP_RAY_TIMEOUT="10") as cluster:
        cluster.call("start")
        assert cluster.call("exchange", 3, count) == seen
        assert cluster.call("idle") == 1, "the object is there"
        assert cluster.call("into", 1000) == [True, True]
        cluster.call("let_go")
        for _ in range(200):
            if cluster.call("idle") == 0:
                break
        assert cluster.call("idle") == 0, "nothing is left"

        said, took, same = cluster.call("orphaned")
        assert said and took < 60 and same, (said, took, same)
        assert cluster.call("exchange", 3, count) == seen, "the others live"
    left = {name for name in set(os.listdir("/dev/shm")) - before if "ray" not in name and "plasma" not in name}
    assert not left


@pytest.mark.parametrize("fabrics", ["shm", "tcp"])
def test_the_transport_by_itself(fabrics, monkeypatch):
    """Source and destination in one process, without Ray around them."""
    torch = pytest.importorskip("torch")
    import tranship
    import tranship.ray

    monkeypatch.setattr(tranship.ray, "_secret", lambda: "secret")
    monkeypatch.setenv("TRANSHIP_RAY_FABRICS", fabrics)
    monkeypatch.setenv("TRANSHIP_RAY_HOST", "127.0.0.1")
    monkeypatch.setenv("TRANSHIP_RAY_TIMEOUT", "60")
    source, other = tranship.ray.TranshipTransport(), tranship.ray.TranshipTransport()
    tensors = [torch.randn(n, 3) for n in range(300)]
    metadata = source.extract_tensor_transport_metadata("o", tensors)
    targets = [torch.zeros_like(tensor) for tensor in tensors]
    places = [target.data_ptr() for target in targets]
    tensors[5][:] = 5
    got = other.recv_multiple_tensors("o", metadata, None, targets)
    assert [tensor.data_ptr() for tensor in got] == places
    assert all(torch.equal(a, b) for i, (a, b) in enumerate(zip(got, tensors)) if i != 5)
    assert not torch.equal(got[5], tensors[5]), "what the actor does later is not seen"

    with pytest.raises(ValueError, match="contiguous"):
        other.fetch_multiple_tensors("o", metadata, None, [torch.zeros(1)] * 300)
    source.garbage_collect("o", metadata, tensors)
    source.garbage_collect("o", metadata, tensors)
    with pytest.raises(RuntimeError, match="revoked"):
        other.recv_multiple_tensors("o", metadata, None)
    for _ in range(1000):
        # The consumer is told over the connection that the memory is gone, and unmaps it then.
        if mapped() == 0:
            break
        other._engine().alloc(1, name="other").close()
    assert mapped() == 0

    empty = source.extract_tensor_transport_metadata("e", [torch.empty(0, 2)])
    assert other.recv_multiple_tensors("e", empty, None)[0].shape == (0, 2)


def test_an_abort_ends_a_fetch(monkeypatch):
    """The source takes connections and never answers."""
    import socket

    torch = pytest.importorskip("torch")
    import tranship.ray

    monkeypatch.setattr(tranship.ray, "_secret", lambda: "secret")
    monkeypatch.setenv("TRANSHIP_RAY_FABRICS", "tcp")
    monkeypatch.setenv("TRANSHIP_RAY_HOST", "127.0.0.1")
    monkeypatch.setenv("TRANSHIP_RAY_TIMEOUT", "60")
    source, other = tranship.ray.TranshipTransport(), tranship.ray.TranshipTransport()
    metadata = source.extract_tensor_transport_metadata("o", [torch.ones(9)])
    port = source._engine().addresses[0].rsplit(":", 1)[1]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        metadata.descriptor = metadata.descriptor.replace(port.encode(), str(listener.getsockname()[1]).encode())
        fetch = other.fetch_multiple_tensors("o", metadata, None)
        with pytest.raises(TimeoutError):
            other.wait_fetch_complete(fetch, 0)
        other.abort_transport("another", None)
        with pytest.raises(TimeoutError):
            other.wait_fetch_complete(fetch, 0.05)
        other.abort_transport("o", None)
        with pytest.raises(RuntimeError, match="cancelled"):
            other.wait_fetch_complete(fetch, 30)


if __name__ == "__main__":
    fresh.answer(globals())
