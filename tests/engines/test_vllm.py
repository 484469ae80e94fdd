"""vLLM on the CPU with TranshipConnector: fresh processes, real daemon, outputs compared."""

import random

PROMPT = [3 + i * 7 % 500 for i in range(600)]
# Full blocks of 32 tokens in the prompt.
CACHED = 576


def prompts(count, seed=5):
    """Prompts that share prefixes, as those of agents do."""
    choose = random.Random(seed)
    trunks = [[choose.randrange(3, 500) for _ in range(320)] for _ in range(8)]
    return [
        choose.choice(trunks)[: choose.choice((96, 200, 320))] + [choose.randrange(3, 500) for _ in range(40)]
        for _ in range(count)
    ]


def outputs(answers):
    return [tokens for tokens, _ in answers]


def cached(answers):
    return [count for _, count in answers]


def test_a_fresh_engine_loads_what_another_stored(daemon, engine, models):
    plain = engine(models[0])
    many = prompts(200)
    reference, references = plain.generate([PROMPT]), plain.generate(many)
    plain.close()

    first = engine(models[0], extra={"address": daemon.address})
    answer = first.generate([PROMPT])
    assert cached(answer) == [0] and outputs(answer) == outputs(reference)
    assert outputs(first.generate(many)) == outputs(references), "200 requests at once, some of them hits"
    first.close()

    second = engine(models[0], extra={"address": daemon.address})
    answer = second.generate([PROMPT])
    assert cached(answer) == [CACHED] and outputs(answer) == outputs(reference)
    answers = second.generate(many)
    assert outputs(answers) == outputs(references)
    assert sum(cached(answers)) > 0

    # The daemon crashes in the middle, and comes back empty: nothing is wrong, and the cache fills again.
    daemon.kill()
    second.forget()
    assert outputs(second.generate([PROMPT])) == outputs(reference)
    second.forget()
    assert outputs(second.generate(many[:20])) == outputs(references[:20])
    daemon.start()
    for _ in range(60):
        second.forget()
        answer = second.generate([PROMPT])
        assert outputs(answer) == outputs(reference)
        if cached(answer) == [CACHED]:
            break
    assert cached(answer) == [CACHED], "the cache came back"


def test_loads_that_are_waited_for_and_layers_stored_as_they_come(daemon, engine, models):
    one = engine(models[0], extra={"address": daemon.address, "load": "sync", "save": "layerwise"})
    reference = one.generate([PROMPT])
    assert cached(reference) == [0]
    for _ in range(2):
        one.forget()
        answer = one.generate([PROMPT])
        assert cached(answer) == [CACHED] and outputs(answer) == outputs(reference)

    # A damaged block is noticed, told, and computed again with what follows it.
    one.forget()
    one.damage(5)
    answer = one.generate([PROMPT])
    assert outputs(answer) == outputs(reference)
    assert "1 corrupt" in one.talk()
    one.forget()
    answer = one.generate([PROMPT])
    assert cached(answer) == [CACHED], "the good block is back"

    # After a reset nothing of before is used.
    one.reset()
    answer = one.generate([PROMPT])
    assert cached(answer) == [0] and outputs(answer) == outputs(reference)


def test_what_differs_is_never_loaded(daemon, engine, models):
    one = engine(models[0], extra={"address": daemon.address, "save": "sync"})
    one.generate([PROMPT])
    one.close()
    for model, options, extra in [
        (models[1], {}, {}),
        (models[0], {"block_size": 64}, {}),
        (models[0], {"dtype": "float32"}, {}),
        (models[0], {}, {"weights_version": "step-2"}),
    ]:
        other = engine(model, extra={"address": daemon.address, **extra}, **options)
        assert cached(other.generate([PROMPT])) == [0], (model, options, extra)
        other.close()


def test_requests_that_lose_their_pages_are_right(daemon, engine, models):
    """Eight requests at once, of which five fit: some are preempted while their pages are stored from and loaded into."""
    many = prompts(32, seed=11)
    # What is computed again is computed in other batches: with fewer bits that alone changes tokens.
    plain = engine(models[0], dtype="float32")
    references = plain.generate(many, 96)
    plain.close()
    for extra in ({}, {"load": "sync", "save": "layerwise"}):
        one = engine(models[0], extra={"address": daemon.address, **extra}, num_gpu_blocks_override=70, dtype="float32")
        for _ in range(2):
            assert outputs(one.generate(many, 96)) == outputs(references)
            one.forget()
        counts = one.metrics()
        assert counts["vllm:num_preemptions"] > 0
        assert counts["vllm:tranship_blocks/load/ready"] > 0
        one.close()
