"""Random models with a byte-level tokenizer, made here: `tiny_model.py OUT [SEED] [KIND]`.

Kinds: `llama`, `qwen3`, `mistral` (a sliding window of 128 tokens), `gemma3` (every second layer has one) and `deepseek`
(latent attention) are tiny; `qwen3-bench` has 0.44 billion parameters, for measurements. `lora` is no model but an adapter
of the tiny llama.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 512
_TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
    # Wide, so that attention decides what comes next.
    "initializer_range": 0.2,
}
# The shape of Qwen3-0.6B, of which it lacks most of the vocabulary.
_BENCH = {
    **_TINY,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "initializer_range": 0.02,
}
KINDS = {
    "llama": ("Llama", _TINY),
    "qwen3": ("Qwen3", _TINY),
    "mistral": ("Mistral", {**_TINY, "sliding_window": 128}),
    "gemma3": (
        "Gemma3",
        {
            **_TINY,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "query_pre_attn_scalar": 64,
        },
    ),
    "deepseek": (
        "DeepseekV2",
        {
            **_TINY,
            "num_key_value_heads": 4,
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 64,
            "v_head_dim": 64,
            "first_k_dense_replace": 4,
            "n_routed_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 64,
            "n_shared_experts": 1,
            "head_dim": None,
        },
    ),
    "qwen3-bench": ("Qwen3", _BENCH),
}


def tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(["a ship carries cargo from one harbour to the next"], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def adapter(where, seed):
    """A LoRA adapter, in the files of PEFT."""
    import safetensors.torch

    torch.manual_seed(seed)
    rank, hidden, heads = 8, _TINY["hidden_size"], _TINY["num_attention_heads"] * _TINY["head_dim"]
    tensors = {}
    for layer in range(_TINY["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, hidden) * 0.3
        tensors[f"{name}.lora_B.weight"] = torch.randn(heads, rank) * 0.3
    Path(where).mkdir(parents=True)
    safetensors.torch.save_file(tensors, f"{where}/adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"], "bias": "none"}
    Path(where, "adapter_config.json").write_text(json.dumps(config))


def main(where, seed="0", kind="llama"):
    if kind == "lora":
        adapter(where, int(seed))
        return
    family, options = KINDS[kind]
    torch.manual_seed(int(seed))
    torch.set_default_dtype(torch.bfloat16)
    config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(family, f"{family}Config"))(**options)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(where)
    tokenizer().save_pretrained(where)


if __name__ == "__main__":
    main(*sys.argv[1:])
