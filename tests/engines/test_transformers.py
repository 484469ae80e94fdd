"""transformers with tranship.transformers.KV: fresh processes, a real daemon, outputs and bytes compared."""

import fresh
import pytest

pytest.importorskip("transformers", reason="transformers is not installed in this environment")

PROMPT = [3 + i * 7 % 500 for i in range(600)]
BLOCK = 64
# Full blocks of the prompt; one token at least is left to compute.
CACHED = 576
_kept = {}


def load(path, address, dtype="bfloat16", **options):
    """In a process of its own: the model and its KV."""
    import torch
    import tranship.transformers
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
    _kept.update(torch=torch, model=model)
    _kept["kv"] = tranship.transformers.KV(model, address, **{"block_tokens": BLOCK, **options}) if address else None
    return _kept["kv"].identity.id if address else None


def generate(prompt, count=12, static=False, save=True):
    """Tokens, how many of the prompt were restored, a digest of them, and how many blocks are there after."""
    import transformers

    torch, model, kv = _kept["torch"], _kept["model"], _kept["kv"]
    past, restored, saved = None, 0, None
    if static:
        past = transformers.StaticCache(config=model.config, max_cache_len=len(prompt) + count)
    if kv is not None:
        past, restored = kv.restore(prompt, into=past)
    past = past if past is not None else transformers.DynamicCache(config=model.config)
    bytes_before = digest(past, restored)
    tokens, at = torch.tensor([prompt[restored:]]), restored
    output = []
    with torch.inference_mode():
        for _ in range(count):
            places = torch.arange(at, at + tokens.shape[1])[None]
            logits = model(input_ids=tokens, past_key_values=past, position_ids=places).logits[:, -1]
            at += tokens.shape[1]
            tokens = logits.argmax(-1, keepdim=True)
            output.append(int(tokens))
    if kv is not None and save:
        saved = kv.save(prompt, past)
    return {"output": output, "restored": restored, "before": bytes_before, "after": digest(past, CACHED), "saved": saved}


def digest(past, count):
    """The bytes of the first `count` tokens."""
    import hashlib

    found = hashlib.sha256()
    for layer in past.layers if count else ():
        for tensor in (layer.keys, layer.values):
            found.update(tensor[:, :, :count].contiguous().view(_kept["torch"].uint8).numpy().tobytes())
    return found.hexdigest()


def library_generate(prompt, count):
    """The library's own loop, over a restored cache."""
    torch, model, kv = _kept["torch"], _kept["model"], _kept["kv"]
    past, restored = kv.restore(prompt)
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), past_key_values=past, max_new_tokens=count, do_sample=False,
        eos_token_id=None, pad_token_id=2,
    )  # fmt: skip
    return {"output": output[0, len(prompt) :].tolist(), "restored": restored}


def harm(prompt, index):
    import tranship

    kv = _kept["kv"]
    cache = kv.cache.with_identity(kv.identity)
    fresh.damage(cache, tranship.Keys.of_tokens(kv.identity, prompt), index)


def train():
    """A step of training, in place."""
    torch, model = _kept["torch"], _kept["model"]
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)


def refused_cache():
    """What a cache that is not this model's says."""
    import transformers

    torch, model, kv = _kept["torch"], _kept["model"], _kept["kv"]
    past = transformers.DynamicCache(config=model.config)
    for index in range(model.config.num_hidden_layers):
        past.update(torch.zeros(1, 2, 64, 32), torch.zeros(1, 2, 64, 32), index)
    try:
        kv.save([7] * 64, past)
    except ValueError as error:
        return str(error)


def test_a_fresh_process_restores_what_another_saved(daemon, models, tmp_path):
    with fresh.Process(__file__, tmp_path / "plain.log") as plain:
        plain.call("load", str(models[0]), None)
        reference = plain.call("generate", PROMPT)
        static = plain.call("generate", PROMPT, static=True)

    with fresh.Process(__file__, tmp_path / "first.log") as first:
        first.call("load", str(models[0]), daemon.address)
        saved = first.call("generate", PROMPT)
        assert (saved["restored"], saved["saved"]) == (0, CACHED // BLOCK)
        assert saved["output"] == reference["output"] and saved["after"] == reference["after"]

    with fresh.Process(__file__, tmp_path / "second.log") as second:
        second.call("load", str(models[0]), daemon.address)
        answer = second.call("generate", PROMPT)
        assert answer["restored"] == CACHED
        assert answer["before"] == saved["after"], "the bytes are those that were saved"
        assert answer["output"] == reference["output"]
        answer = second.call("generate", PROMPT, static=True)
        assert answer["restored"] == CACHED and answer["before"] == saved["after"]
        assert answer["output"] == static["output"]
        answer = second.call("library_generate", PROMPT, 12)
        assert answer == {"output": reference["output"], "restored": CACHED}
        # A prompt that parts from it after 200 tokens.
        assert second.call("generate", PROMPT[:200] + PROMPT[100:300])["restored"] == 192
        assert second.call("generate", PROMPT[:64])["restored"] == 0, "one token is left to compute"
        assert "2 heads of 64" in second.call("refused_cache")

        # A damaged block is noticed, computed again with what follows, and is good afterwards.
        second.call("harm", PROMPT, 4)
        answer = second.call("generate", PROMPT)
        assert answer["restored"] == 4 * BLOCK and answer["output"] == reference["output"]
        assert "corrupt" in second.told()
        assert second.call("generate", PROMPT)["restored"] == CACHED

        # The daemon crashes, and comes back empty.
        daemon.kill()
        for _ in range(2):
            answer = second.call("generate", PROMPT)
            assert answer["restored"] == 0 and answer["output"] == reference["output"]
        daemon.start()
        for _ in range(60):
            answer = second.call("generate", PROMPT)
            assert answer["output"] == reference["output"]
            if answer["restored"] == CACHED:
                break
        assert answer["restored"] == CACHED, "the cache came back"

        # Other weights: nothing of before is theirs.
        second.call("train")
        assert second.call("generate", PROMPT)["restored"] == 0


def test_what_differs_is_never_restored(daemon, models, tmp_path):
    def restored(index, **options):
        with fresh.Process(__file__, tmp_path / "one.log") as one:
            one.call("load", str(models[index]), daemon.address, **options)
            return one.call("generate", PROMPT)["restored"]

    assert restored(0) == 0
    assert restored(1) == 0
    assert restored(0, dtype="float32") == 0
    assert restored(0, block_tokens=32) == 0
    assert restored(0, salt="another") == 0
    assert restored(0) == CACHED


if __name__ == "__main__":
    fresh.answer(globals())
