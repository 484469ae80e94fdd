"""Ray's direct transport through tranship.ray: actors in processes of their own, a real daemon."""

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
            return True

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

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=100 << 20)
    _kept.update(ray=ray, producer=Producer.remote(), consumer=Consumer.remote())


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
    """The producer has something else to do."""
    ray = _kept["ray"]
    return ray.get(_kept["producer"].idle.remote())


def fails(seed, count):
    """What an exchange that cannot work says."""
    try:
        exchange(seed, count)
    except Exception as error:
        return str(error)


def test_actors_pass_tensors_through_the_daemon(daemon, tmp_path):
    import tranship

    seen = [[True, True, 7.5, [0, 3], "seed 3"], True]
    count = (9 << 20) // 4
    with fresh.Process(__file__, tmp_path / "ray.log", TRANSHIP_ADDRESS=daemon.address) as cluster:
        cluster.call("start")
        assert cluster.call("exchange", 3, count) == seen
        with tranship.connect(daemon.address) as cache:
            assert pinned(cache) == 5, "three of a, one of b, one of c"
            assert cluster.call("into", 1000) == [True, True]
            cluster.call("let_go")
            for _ in range(200):
                # The producer is told that an object is gone as it does other things.
                if pinned(cache) == 0:
                    break
                cluster.call("idle")
            assert pinned(cache) == 0, "nothing is left"

        assert "could not be kept" in cluster.call("fails", 4, 80 << 18), "it is larger than the daemon's memory"
        assert cluster.call("exchange", 3, 16) == seen, "the actors live"
        daemon.kill()
        assert cluster.call("fails", 5, 16)
        daemon.start()
        for _ in range(60):
            if cluster.call("fails", 3, 16) is None:
                break
        assert cluster.call("exchange", 3, count) == seen


def pinned(cache):
    import tranship

    return tranship.stats(cache)["gauges"]["pinned"]["blocks"]


if __name__ == "__main__":
    fresh.answer(globals())
