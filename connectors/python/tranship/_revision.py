"""Which weights a model has, for identities: as exactly as can be told without reading all of them."""

import hashlib
import json
from pathlib import Path

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_HEAD_BYTES = 64 << 10
_SAMPLES = 64
_SAMPLE_BYTES = 4 << 10


def revision(model: str, wanted: str | None = None) -> str:
    """The commit of a snapshot from the hub; of any other folder, a digest of every weight file's size, head and
    samples of its body."""
    where = Path(model)
    if not where.exists():
        from huggingface_hub import snapshot_download

        where = Path(snapshot_download(model, revision=wanted, local_files_only=True))
    where = where.resolve() if where.is_symlink() else where
    if where.parent.name == "snapshots":
        return where.name
    folder = where if where.is_dir() else where.parent
    weights = {file for glob in _WEIGHTS for file in folder.glob(glob)} if where.is_dir() else {where}
    if not weights:
        raise ValueError(
            f"{where} has no weights ({', '.join(_WEIGHTS)}), so nothing tells which they are; give weights_version"
        )
    digest = hashlib.blake2b(digest_size=16)
    for file in [file for file in (folder / "config.json",) if file.exists()] + sorted(weights):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with open(file, "rb") as opened:
            digest.update(opened.read(_HEAD_BYTES))
            for sample in range(_SAMPLES):
                opened.seek(size * sample // _SAMPLES)
                digest.update(opened.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def short(facts: dict) -> str:
    """A digest of what else must agree."""
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()
