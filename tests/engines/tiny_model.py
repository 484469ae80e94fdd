"""Random models with a byte-level tokenizer, made here: `tiny_model.py OUT [SEED] [KIND]`.

Kinds: `llama`, `qwen3` and `mistral` (a sliding window of 128 tokens) are tiny; `qwen3-bench` has 0.44 billion
parameters, for measurements.
"""

import sys

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


def main(where, seed="0", kind="llama"):
    family, options = KINDS[kind]
    torch.manual_seed(int(seed))
    torch.set_default_dtype(torch.bfloat16)
    config = getattr(transformers, f"{family}Config")(**options)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(where)
    tokenizer().save_pretrained(where)


if __name__ == "__main__":
    main(*sys.argv[1:])
