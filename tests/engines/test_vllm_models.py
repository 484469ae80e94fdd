"""vLLM with models whose caches differ in kind: windows, latent attention, adapters, and two ranks."""

import subprocess
import sys
from pathlib import Path

import pytest

PROMPT = [3 + i * 7 % 500 for i in range(600)]
# Full blocks of 32 tokens in the prompt.
CACHED = 576


def make(where, kind, seed=0):
    script = Path(__file__).parent / "tiny_model.py"
    subprocess.run([sys.executable, script, where, str(seed), kind], check=True)
    return where


def outputs(answers):
    return [tokens for tokens, _ in answers]


def cached(answers):
    return [count for _, count in answers]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("mistral", {}), ("gemma3", {}), ("deepseek", {"block_size": 16}), ("llama", {"tensor_parallel_size": 2})],
)
def test_a_fresh_engine_loads_what_another_stored(daemon, engine, tmp_path, kind, options):
    model = make(tmp_path / kind, kind)
    # With fewer bits, what is computed after a hit differs by itself.
    options = {"dtype": "float32", **options}
    if "tensor_parallel_size" in options:
        options["distributed_executor_backend"] = "mp"
    plain = engine(model, **options)
    follow = PROMPT[:400] + [9, 8, 7] * 40
    reference, other = plain.generate([PROMPT], 32), plain.generate([follow], 32)
    # vLLM's latent attention on CPUs without AMX cannot go on from a prefix, and says so by turning its own cache off.
    usable = "prefix caching to be disabled" not in plain.talk()
    assert usable or kind == "deepseek"
    plain.close()

    first = engine(model, extra={"address": daemon.address, "save": "sync"}, **options)
    answer = first.generate([PROMPT], 32)
    assert cached(answer) == [0] and outputs(answer) == outputs(reference)
    first.close()

    second = engine(model, extra={"address": daemon.address}, **options)
    answer = second.generate([PROMPT], 32)
    size = options.get("block_size", 32)
    assert cached(answer) == [len(PROMPT) // size * size if usable else 0]
    assert outputs(answer) == outputs(reference)
    # Another end after the same beginning.
    second.forget()
    answer = second.generate([follow], 32)
    assert outputs(answer) == outputs(other)
    if not usable:
        assert "prefix caching is off" in second.talk()
        pytest.skip("vLLM cannot use a prefix with latent attention on this CPU: stored, and rightly not loaded")


def test_adapters_are_told_by_their_weights(daemon, engine, models, tmp_path):
    adapters = [make(tmp_path / f"adapter-{seed}", "lora", seed) for seed in (1, 2)]
    options = {"enable_lora": True, "max_lora_rank": 8, "max_loras": 1}
    plain = engine(models[0], **options)
    references = [plain.generate([PROMPT], adapter=adapter) for adapter in [*adapters, None]]
    plain.close()
    assert len({str(outputs(reference)) for reference in references}) == 3, "adapters that change nothing show nothing"

    one = engine(models[0], extra={"address": daemon.address, "save": "sync"}, **options)
    for adapter, reference in zip(adapters, references):
        answer = one.generate([PROMPT], adapter=adapter)
        assert cached(answer) == [0] and outputs(answer) == outputs(reference)
        one.forget()
    one.close()

    other = engine(models[0], extra={"address": daemon.address}, **options)
    for adapter, reference, count in zip([*adapters, None], references, [CACHED, CACHED, 0]):
        answer = other.generate([PROMPT], adapter=adapter)
        assert cached(answer) == [count] and outputs(answer) == outputs(reference)
        other.forget()
