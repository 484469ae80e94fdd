"""vLLM's OffloadingConnector on the CPU, with TranshipTier below its host memory: engines in fresh processes."""

import fresh
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed in this environment")

PROMPT = [3 + i * 7 % 500 for i in range(600)]
BLOCK = 32
# Full blocks of the prompt.
CACHED = 576
_kept = {}


def start(model, address=None, tier="TranshipTier", module="tranship.vllm_tier", options=None, **settings):
    from vllm import LLM

    transfer = None
    if address is not None:
        transfer = {
            "kv_connector": "OffloadingConnector",
            "kv_role": "kv_both",
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": {
                "spec_name": "CpuTieringSpec",
                "spec_module_path": "vllm_cpu_offload",
                "cpu_bytes_to_use": 64 << 20,
                "secondary_tiers": [{"type": tier, "module_path": module, "address": address, **settings}],
            },
        }
    _kept["llm"] = LLM(
        model=model, enforce_eager=True, enable_prefix_caching=True, distributed_executor_backend="uni",
        max_model_len=2048, max_num_batched_tokens=2048, max_num_seqs=8, kv_transfer_config=transfer,
        **{"dtype": "bfloat16", "block_size": BLOCK, **(options or {})},
    )  # fmt: skip


def stop():
    if "llm" in _kept:
        _kept["llm"].llm_engine.engine_core.shutdown()


def generate(prompt, count=12):
    """Tokens, and how many of the prompt were cached."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    answer = _kept["llm"].generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)[0]
    return [list(answer.outputs[0].token_ids), answer.num_cached_tokens]


def forget():
    """Empties vLLM's prefix cache and its host memory, as before an update of the weights."""
    llm = _kept["llm"]
    for _ in range(10_000):
        if llm.reset_prefix_cache(reset_connector=True):
            return True
        llm.llm_engine.engine_core.get_output()
    return False


def engine(log, stored="/dev/null"):
    return fresh.Process(
        __file__, log, VLLM_TARGET_DEVICE="cpu", VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_ENABLE_V1_MULTIPROCESSING="0", TRANSHIP_TEST_STORED=str(stored),
    )  # fmt: skip


def test_a_fresh_engine_loads_what_another_stored(daemon, models, tmp_path):
    import tranship

    stored = tmp_path / "stored"
    with engine(tmp_path / "plain.log") as plain:
        plain.call("start", str(models[0]))
        output, _ = plain.call("generate", PROMPT)

    with engine(tmp_path / "first.log", stored) as first:
        first.call("start", str(models[0]), daemon.address, "WatchedTier", "vllm_cpu_offload")
        assert first.call("generate", PROMPT) == [output, 0]
        for _ in range(100):
            # Jobs are collected as the engine steps.
            if sum(len(keys) for _, keys in fresh.written(stored)) >= CACHED // BLOCK:
                break
            first.call("generate", [5, 6, 7], 1)
        assert sum(len(keys) for _, keys in fresh.written(stored)) >= CACHED // BLOCK

    with engine(tmp_path / "second.log") as second:
        second.call("start", str(models[0]), daemon.address, after_reset="keep")
        assert second.call("generate", PROMPT) == [output, CACHED]

        identity, keys = fresh.written(stored)[0]
        with tranship.connect(daemon.address, identity=identity) as cache:
            fresh.damage(cache, tranship.Keys.of_names(keys), 5)
        assert second.call("forget")
        answer, cached = second.call("generate", PROMPT)
        assert answer == output and cached < CACHED
        assert "1 corrupt" in second.told()

        daemon.kill()
        assert second.call("forget")
        assert second.call("generate", PROMPT) == [output, 0]
        daemon.start()
        for _ in range(60):
            assert second.call("forget")
            answer, cached = second.call("generate", PROMPT)
            assert answer == output
            if cached == CACHED:
                break
        assert cached == CACHED, "the cache came back"


def test_what_differs_is_never_loaded(daemon, models, tmp_path):
    with engine(tmp_path / "one.log") as one:
        one.call("start", str(models[0]), daemon.address)
        output, _ = one.call("generate", PROMPT)
        one.call("generate", [5, 6, 7], 1)
        # What was stored before a reset is not used after it: the weights may be others.
        assert one.call("forget")
        assert one.call("generate", PROMPT) == [output, 0]
    for number, (model, options, settings) in enumerate(
        [(models[1], {}, {}), (models[0], {"dtype": "float32"}, {}), (models[0], {}, {"weights_version": "v2"})]
    ):
        with engine(tmp_path / f"other-{number}.log") as other:
            other.call("start", str(model), daemon.address, options=options, **settings)
            assert other.call("generate", PROMPT)[1] == 0, (model, options, settings)


if __name__ == "__main__":
    fresh.answer(globals())
