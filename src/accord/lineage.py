"""What a file, a folder and a hub model are by their content, and on what a run ran and how long, for lineages."""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

from accord.config import hub_id
from accord.records import content_hash


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
    """What a parent is: the hash of a file or directory (and of which base it is an adapter), a hub model's commit."""
    folder = Path(where)
    if folder.is_file():
        return {"path": where, "hash": hash_file(folder)}
    if not folder.is_dir():
        return {"path": where, "hash": None, "revision": hub_revision(where)}
    found: dict[str, Any] = {"path": where, "hash": hash_directory(folder)}
    if (adapter := folder / "adapter_config.json").is_file():
        base = str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
        found["base"] = {"path": base, "revision": hub_revision(base)}
    return found


def model_key(where: str) -> str:
    """What tells a model from any other: 16 hex digits of its content, or NAME@COMMIT on the hub.

    Two places of one content have one key.
    """
    known = identity(where)
    if known["hash"] is None:
        return f"{where}@{known['revision']}"
    if Path(where).is_file():
        return str(known["hash"])[:16]
    return content_hash("model", known["hash"], known.get("base"))


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What this process runs on."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "cores": available_cores(),
    }


def peak_memory() -> int | None:
    """Bytes that this process has held in memory at most since it began; None where the system does not say."""
    status = Path("/proc/self/status")  # of Linux
    said = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in said if line.startswith("VmHWM:")), None)


def seconds_worked(folder: Path, began: Path) -> float:
    """Seconds from a start of a run, which wrote `began`, to the last file that it wrote, however it ended."""
    if not began.exists():
        return 0.0
    # whoever asks touches the lock, and a start that is refused may have written the config
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in (".lock", "config.yaml"))
    return max(file.stat().st_mtime for file in files) - began.stat().st_mtime
