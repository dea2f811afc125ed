"""Files written whole or not at all, and read so that what is broken in one is named."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import yaml

from accord.errors import BadInput

_LOADER, _DUMPER = (getattr(yaml, f"CSafe{kind}", getattr(yaml, f"Safe{kind}")) for kind in ("Loader", "Dumper"))
_UNIQUE = type("_Unique", (_LOADER,), {})  # in which a key that stands twice is an error, not the last one's


def _unique_keys(loader: Any, node: Any) -> Iterator[dict[Any, Any]]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", node.start_mark)
    found: dict[Any, Any] = {}
    yield found
    found.update(loader.construct_mapping(node))


yaml.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys, Loader=_UNIQUE)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write(stream)` on a temporary file beside `path`, sync it, and rename it over `path`.

    The temporary name is the writer's own: others, here or in another process, may write the same file meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file that was written lies on the disk."""
    with open(path, "r+b") as stream:  # Windows syncs nothing that was opened for reading alone
        os.fsync(stream.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, or nothing."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_yaml(path: Path, value: Any) -> None:
    """Write plain values as a whole YAML file, keys in their order, or nothing."""
    write_text(path, yaml.dump(value, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


def read_json(path: Path) -> Any:
    """Parse a JSON file; BadInput names it if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; is its folder a finished run?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid JSON ({error}); run the stage that wrote it again") from None


def read_yaml(path: str | Path, flag: str = "") -> Any:
    """Parse a YAML file of plain values, which a flag may have named.

    BadInput names both where it is missing, broken, asks for more than values, or a key stands twice in it.
    """
    named = f"{flag} {path}" if flag else str(path)
    try:
        return _UNIQUE(Path(path).read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError:
        raise BadInput(f"{named}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        remedy = "correct it" if flag else "bring it back as it was"
        raise BadInput(f"{named}: not valid YAML ({' '.join(str(error).split())}); {remedy}") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Parse a JSON-lines log of a run folder; an absent one is empty, a line that holds no object is BadInput."""
    if not path.exists():
        return []
    rows = []
    # not `splitlines`, as in `lines_of`
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}:{number}: not valid JSON ({error}); delete it or run the stage again") from None
        if not isinstance(row, dict):
            raise BadInput(f"{path}:{number}: holds a {type(row).__name__} where an object belongs; delete the line")
        rows.append(row)
    return rows


def lines_of(path: Path) -> list[str]:
    """Lines of a log. Not `splitlines`: a model's text may hold U+2028 and its like, which JSON leaves as they are."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n") if path.stat().st_size else []
