"""Columnar files to rows: parquet, Arrow, and folders that `save_to_disk` of datasets wrote."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from accord.data.formats import Row
from accord.errors import BadInput

BATCH = 1024  # rows in memory at once


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def read_parquet(path: Path) -> Iterator[Row]:
    return _read_batches(path, "parquet", _parquet_batches)


def read_arrow(path: Path) -> Iterator[Row]:
    return _read_batches(path, "Arrow", _arrow_batches)


def _parquet_batches(path: Path) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=BATCH)


def _arrow_batches(path: Path) -> Iterator[Any]:
    """Record batches of an Arrow file, or of a stream, which is what datasets writes under the same ending."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as memory:
        magic = memory.read(6)
        memory.seek(0)
        if magic == b"ARROW1":
            file = pyarrow.ipc.open_file(memory)
            batches: Iterable[Any] = (file.get_batch(i) for i in range(file.num_record_batches))
        else:
            batches = pyarrow.ipc.open_stream(memory)
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH):
                yield batch.slice(start, BATCH)


def _read_batches(path: Path, kind: str, batches: Callable[[Path], Iterator[Any]]) -> Iterator[Row]:
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: the file is empty; give another, or make it again.")
    number = 0
    try:
        for batch in batches(path):
            for value in batch.to_pylist():
                number += 1
                yield Row(value, f"{path} row {number}", str(path))
    except ImportError:
        raise BadInput(
            f"{path}: reading {kind} needs pyarrow; install it with: pip install 'accord[parquet]'"
        ) from None
    except (ValueError, OSError) as error:
        # pyarrow's own errors are ValueErrors; those of the rows' readers are BadInput and pass.
        raise BadInput(
            f"{path}: not a readable {kind} file, after row {number} ({first_line(error)}); copy or save it again."
        ) from None
    if number == 0:
        raise BadInput(f"{path}: the file holds no rows; give another, or make it again.")


# Folders of save_to_disk


def saved_files(folder: Path) -> list[Path] | None:
    """The Arrow files of a folder that `Dataset.save_to_disk` wrote, in their order; None for any other folder.

    Raises BadInput for several splits, of which one must be named, and for a selection that was not written out.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = [str(name) for name in _read_object(folder / "dataset_dict.json").get("splits", [])]
        if len(splits) != 1:
            named = ", ".join(str(folder / split) for split in splits)
            raise BadInput(f"{folder}: holds {len(splits)} splits of a saved data set; name one: {named}.")
        return saved_files(folder / splits[0])
    if not ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()):
        return None
    state = _read_object(folder / "state.json")
    if state.get("_indices_data_files"):
        raise BadInput(
            f"{folder}: was saved with a selection of its rows beside them; write the selection out with datasets: "
            f"load_from_disk({str(folder)!r}).to_json('rows.jsonl')"
        )
    return [folder / str(entry["filename"]) for entry in state.get("_data_files", [])]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadInput(f"{path}: is no description of a saved data set; save it again.")
    return value
