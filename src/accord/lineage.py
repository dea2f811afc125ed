"""What a file, a folder and a hub model are by their content: hashes and commits, for lineages and manifests."""

import hashlib
import json
from pathlib import Path
from typing import Any

from accord.config import hub_id


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_directory(path: Path) -> str:
    """SHA-256 over the names and hashes of every file below `path`."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{hash_file(file)}\n".encode())
    return digest.hexdigest()


def hub_revision(where: str) -> str | None:
    """The commit that the local cache has of a hub model; None of anything else."""
    name, revision = hub_id(where)
    if not name:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision or None)
    return Path(found).parent.name if isinstance(found, str) else None


def identity(where: str) -> dict[str, Any]:
    """What a parent is: the hash of a directory (and of which base it is an adapter), the commit of a hub model."""
    folder = Path(where)
    if not folder.is_dir():
        return {"path": where, "hash": None, "revision": hub_revision(where)}
    found: dict[str, Any] = {"path": where, "hash": hash_directory(folder)}
    if (adapter := folder / "adapter_config.json").is_file():
        base = str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
        found["base"] = {"path": base, "revision": hub_revision(base)}
    return found
