"""What makes the KV of two engines interchangeable, from what vLLM knows of its model and caches."""

import functools
import hashlib
from pathlib import Path

import vllm
from vllm.v1 import kv_cache_interface as kv

import tranship
from tranship import _revision


def groups(kv_cache_config):
    """The groups of layers that are cached, with their kind; what cannot be cached is refused here."""
    found = []
    for index, group in enumerate(kv_cache_config.kv_cache_groups):
        spec = group.kv_cache_spec
        inner = list(spec.kv_cache_specs.values()) if isinstance(spec, kv.UniformTypeKVCacheSpecs) else [spec]
        for one in inner:
            if type(one) not in (kv.FullAttentionSpec, kv.MLAAttentionSpec, kv.SlidingWindowSpec):
                raise ValueError(
                    f"layers {group.layer_names[:3]} keep {type(one).__name__}, which TranshipConnector cannot "
                    "carry yet (full, latent and sliding-window attention it can); serve this model without it"
                )
        windows = {one.sliding_window if isinstance(one, kv.SlidingWindowSpec) else None for one in inner}
        if len(windows) != 1:
            raise ValueError(f"layers {group.layer_names[:3]} of one group have windows {windows}")
        found.append(Group(index, list(group.layer_names), spec.block_size, windows.pop(), inner[0]))
    return found


class Group:
    """Layers whose blocks are allocated together."""

    def __init__(self, index, layers, block_size, window, spec):
        self.index, self.layers, self.block_size, self.window, self.spec = index, layers, block_size, window, spec

    def first_needed(self, tokens: int) -> int:
        """The first block that a prefix of so many tokens needs."""
        return 0 if self.window is None else max(0, tokens - self.window) // self.block_size


def identities(vllm_config, kv_cache_config, caches, settings, epoch=""):
    """One identity a group, as one worker has it: `caches` are its tensors by layer."""
    model, parallel, cache = vllm_config.model_config, vllm_config.parallel_config, vllm_config.cache_config
    from vllm.distributed import get_pp_group, get_tensor_model_parallel_rank

    revision = settings.weights_version or weights(model, vllm_config.load_config)
    result = []
    for group in groups(kv_cache_config):
        tensors = [caches[name] for name in group.layers]
        page = tuple(tensors[0].shape[1:])
        layout = {
            "vllm": vllm.__version__,
            "device": tensors[0].device.type,
            "order": str(kv_cache_config.kv_cache_layout),
            "backend": _backends(vllm_config, group.layers),
            "group": [group.index, len(kv_cache_config.kv_cache_groups)],
            "spec": type(group.spec).__name__,
            "window": group.window,
            "shapes": sorted({(str(t.dtype), tuple(t.shape[1:]), tuple(t.stride()[1:])) for t in tensors}),
            "context": [parallel.decode_context_parallel_size],
        }
        result.append(
            tranship.Identity(
                model.model[-500:],
                revision,
                f"{cache.cache_dtype}/{tensors[0].dtype}",
                f"vllm-{layout['device']}-{layout['order']}-g{group.index}-{_revision.short(layout)}",
                layers=len(group.layers),
                kv_heads=page[0] if len(page) > 1 else 1,
                head_dim=page[-1],
                tp_size=parallel.tensor_parallel_size,
                tp_rank=get_tensor_model_parallel_rank(),
                pp_size=parallel.pipeline_parallel_size,
                pp_rank=get_pp_group().rank_in_group,
                block_tokens=group.block_size,
                salt=settings.salt + epoch,
            )
        )
    return result


def _backends(vllm_config, layers):
    """The attention backends: they decide how bytes lie within a page."""
    context = vllm_config.compilation_config.static_forward_context
    names = set()
    for layer in layers:
        backend = getattr(context.get(layer), "attn_backend", None)
        names.add(f"{backend.__module__}.{backend.__qualname__}" if backend else "unknown")
    return sorted(names)


def weights(model_config, load_config) -> str:
    """The weights, and how they are loaded."""
    mode = f"{load_config.load_format}/{model_config.quantization}"
    if "dummy" in str(load_config.load_format):
        return f"dummy-{model_config.seed}/{mode}"
    return f"{_revision.revision(model_config.model, model_config.revision)}/{mode}"


def context(vllm_config, request) -> bytes:
    """What vLLM's block hashes leave out: the algorithm, and which weights an adapter's name stands for."""
    algorithm = vllm_config.cache_config.prefix_caching_hash_algo
    lora = request.lora_request
    if lora is None:
        return f"vllm/{algorithm}".encode()
    files = [(str(file), file.stat()) for file in sorted(Path(lora.lora_path).glob("adapter_*"))]
    if not files:
        raise ValueError(f"LoRA adapter {lora.lora_name!r}: no adapter_* files in {lora.lora_path!r} to tell it by")
    digest = _digest(tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files))
    return f"vllm/{algorithm}/{lora.lora_name}/{digest}".encode()


@functools.lru_cache(maxsize=1024)
def _digest(files) -> str:
    """Of files that are the same as long as their sizes and times are."""
    digest = hashlib.blake2b(digest_size=16)
    for name, _, _ in files:
        digest.update(Path(name).name.encode() + b"\0" + Path(name).read_bytes())
    return digest.hexdigest()


def with_epoch(one: tranship.Identity, salt: str) -> tranship.Identity:
    """The same identity under another salt."""
    words, named = one.__getnewargs_ex__()
    return tranship.Identity(*words, **{**named, "salt": salt})
