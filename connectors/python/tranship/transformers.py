"""transformers: the KV of a prompt is kept, and given back to a model of the same weights.

    kv = tranship.transformers.KV(model)                 # TRANSHIP_ADDRESS, or this machine's daemon
    past, count = kv.restore(tokens)                     # a DynamicCache with the first `count` tokens
    output = model.generate(input_ids, past_key_values=past)
    kv.save(tokens, past)                                # full blocks that are not there yet

`restore(tokens, into=cache)` fills a `StaticCache` in place. One sequence at a time, models with full attention.
"""

import logging

import torch
import transformers

import tranship
from tranship import LoadResult
from tranship._revision import short

logger = logging.getLogger("tranship.transformers")

# Elements of each parameter that tell its weights from others.
_SAMPLES = 256
# Kinds of rotary embedding whose keys go by the length of the whole sequence: a prefix is not a prefix of all.
_BY_LENGTH = {"dynamic", "longrope"}
# What a configuration says that does not change the KV.
_NAMES = {"_name_or_path", "transformers_version", "architectures", "torch_dtype", "_commit_hash"}


class KV:
    """A model's KV in a Tranship daemon. What cannot be asked, read or trusted is a miss."""

    def __init__(
        self, model, address=None, *, block_tokens=64, tenant="default", token="", secret=None, timeout=5.0, wait=1.0,
        weights_version="", salt="",
    ):  # fmt: skip
        if block_tokens < 1:
            raise ValueError(f"block_tokens is {block_tokens}; give 1 or more")
        self.model, self.block_tokens, self.wait = model, block_tokens, wait
        self.weights_version, self.salt = weights_version, salt
        rope = getattr(model.config, "rope_parameters", None) or getattr(model.config, "rope_scaling", None) or {}
        # One for all layers, or one for each kind of them.
        for each in (rope, *(kind for kind in rope.values() if isinstance(kind, dict))):
            if each.get("rope_type") in _BY_LENGTH:
                raise ValueError(
                    f"the model's positions are of type {each['rope_type']}, by which keys of a prefix differ with what "
                    "follows it; it cannot be kept"
                )
        self.shapes = _shapes(model)
        self.cache = tranship.connect(
            address, tenant=tenant, token=token, secret=secret, name="transformers", timeout=timeout
        )
        self.refresh()

    def refresh(self):
        """Looks at the weights again. Needed only where they change behind autograd's back (`param.data`)."""
        self._seen = _versions(self.model)
        self.identity = _identity(self)
        self.guard = tranship.Guard(self.cache.with_identity(self.identity))

    def _check(self):
        if not self.weights_version and _versions(self.model) != self._seen:
            self.refresh()

    def save(self, tokens, past_key_values):
        """Stores the full blocks of a sequence that are not there yet; how many are there now, from the first."""
        self._check()
        tokens = _sequence(tokens)
        length = min(len(tokens), int(past_key_values.get_seq_length()))
        keys = tranship.Keys.of_tokens(self.identity, tokens[:length])
        there = self.guard.lookup(keys) if len(keys) else 0
        if there == len(keys):
            return there
        first, last = there * self.block_tokens, len(keys) * self.block_tokens
        pages = []
        for index, layer in enumerate(self._layers(past_key_values)):
            for kind, tensor in enumerate((layer.keys, layer.values)):
                self._expect(index, kind, tensor)
                pages.append(self._blocks(tensor[:, :, first:last].to("cpu")))
        stored = self.guard.store(keys[there:], tranship.Pages(pages)[range(len(keys) - there)])
        if stored is None:
            return there
        return there + next((i for i in stored.refused), len(stored))

    def restore(self, tokens, into=None):
        """The cache with the longest prefix that is there, and how many tokens that is: at least one is left to
        compute. Without `into` a new DynamicCache; `into` an empty StaticCache is filled in place."""
        self._check()
        tokens = _sequence(tokens)
        past = into if into is not None else transformers.DynamicCache(config=self.model.config)
        keys = tranship.Keys.of_tokens(self.identity, tokens[: len(tokens) - 1])
        if into is not None:
            self._prepare(into)
            keys = keys[: min(layer.keys.shape[-2] for layer in into.layers) // self.block_tokens]
        there = self.guard.lookup(keys) if len(keys) else 0
        if not there:
            return past, 0
        length = there * self.block_tokens
        staged = [
            [self._target(into, index, kind, length) for kind in range(2)] for index in range(len(self.shapes))
        ]
        pages = tranship.Pages([self._blocks(tensor) for pair in staged for tensor in pair])
        loaded = self.guard.load(keys[:there], pages[range(there)], wait=self.wait)
        if loaded is not None and LoadResult.CORRUPT in list(loaded):
            logger.warning("a block of %d was corrupt; it and what follows is computed", there)
        length = loaded.prefix * self.block_tokens if loaded is not None else 0
        if length:
            self._fill(past, staged, length, into is not None)
        return past, length

    def close(self):
        self.cache.close()

    def _layers(self, past):
        if len(past.layers) != len(self.shapes):
            raise ValueError(f"the cache has {len(past.layers)} layers, the model {len(self.shapes)}")
        return past.layers

    def _expect(self, index, kind, tensor):
        heads, size, dtype = self.shapes[index][kind]
        if tensor.shape[:2] != (1, heads) or tensor.shape[3] != size or tensor.dtype != dtype:
            raise ValueError(
                f"layer {index} of the cache is {tuple(tensor.shape)} of {tensor.dtype}; this model's is of one "
                f"sequence, {heads} heads of {size}, {dtype}"
            )

    def _blocks(self, tensor):
        """[1, heads, tokens, size] as [blocks, heads, tokens of a block, bytes]: no copy."""
        if tensor.stride(-1) != 1:
            tensor = tensor.contiguous()
        return tensor[0].view(torch.uint8).unflatten(1, (-1, self.block_tokens)).transpose(0, 1)

    def _prepare(self, into):
        if not isinstance(into, transformers.StaticCache):
            raise ValueError(f"into is a {type(into).__name__}; only a StaticCache is filled in place")
        if any(not layer.is_initialized for layer in into.layers):
            heads, size, dtype = self.shapes[0][0]
            into.early_initialization(
                batch_size=1, num_heads=heads, head_dim=size, dtype=dtype, device=self.model.device
            )
        for index, layer in enumerate(self._layers(into)):
            self._expect(index, 0, layer.keys)
            self._expect(index, 1, layer.values)

    def _target(self, into, index, kind, length):
        """Where a layer's keys or values are loaded: in place where that is host memory."""
        if into is not None:
            layer = into.layers[index]
            tensor = (layer.keys, layer.values)[kind]
            if tensor.device.type == "cpu":
                return tensor[:, :, :length]
        heads, size, dtype = self.shapes[index][kind]
        return torch.empty((1, heads, length, size), dtype=dtype)

    def _fill(self, past, staged, length, static):
        for index, (keys, values) in enumerate(staged):
            keys, values = keys[:, :, :length], values[:, :, :length]
            if not static:
                past.update(keys.to(self.model.device), values.to(self.model.device), index)
                continue
            layer = past.layers[index]
            if layer.keys.device.type != "cpu":
                layer.keys[:, :, :length].copy_(keys)
                layer.values[:, :, :length].copy_(values)
            layer.cumulative_length.fill_(length)


def _sequence(tokens):
    tokens = torch.as_tensor(tokens)
    if tokens.dim() == 2 and tokens.shape[0] == 1:
        tokens = tokens[0]
    if tokens.dim() != 1:
        raise ValueError(f"tokens are {tuple(tokens.shape)}; give those of one sequence")
    return tokens.tolist()


@torch.inference_mode()
def _shapes(model):
    """For each layer (heads, size, dtype) of keys and of values: as the model makes them of one token."""
    token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    past = model(input_ids=token, use_cache=True).past_key_values
    for index, layer in enumerate(past.layers):
        if type(layer).__name__ not in ("DynamicLayer", "StaticLayer"):
            raise ValueError(
                f"layer {index} keeps a {type(layer).__name__}, which holds more or less than all keys and values; "
                "only models with full attention can be kept"
            )
    return [tuple((t.shape[1], t.shape[3], t.dtype) for t in (layer.keys, layer.values)) for layer in past.layers]


def _versions(model):
    """Changes whenever a parameter is written in place, or replaced."""
    versions = []
    for tensor in (*model.parameters(), *model.buffers()):
        versions.append((id(tensor), -1 if tensor.is_inference() else tensor._version))
    return versions


@torch.no_grad()
def _fingerprint(model):
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        flat = tensor.detach().reshape(-1)
        if flat.numel():
            # From end to end, so that the first and the last are among them.
            at = torch.linspace(0, flat.numel() - 1, min(_SAMPLES, flat.numel()), dtype=torch.float64)
            sample = flat[at.round().long().to(flat.device)].contiguous().to("cpu")
            digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _identity(kv):
    model, shapes = kv.model, kv.shapes
    config = {name: str(value) for name, value in model.config.to_dict().items() if name not in _NAMES}
    (heads, size, dtype), _ = shapes[0]
    return tranship.Identity(
        type(model).__name__,
        kv.weights_version or _fingerprint(model),
        str(dtype),
        f"transformers-{short({'config': config, 'shapes': str(shapes)})}",
        layers=len(shapes),
        kv_heads=heads,
        head_dim=size,
        block_tokens=kv.block_tokens,
        salt=kv.salt,
    )
