"""Bytes to rows: local files and folders, `hub:` data sets and the gold world, each row with its place.

Everything wrong with a file is said here, with the file and the 1-based line; the text of a row is never
quoted, because preference data holds text that does not belong into a terminal.
"""

import csv
import difflib
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from accord.data.rows import Record, to_row
from accord.errors import BadInput

ROW_ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
TEXT_ENDINGS = (".txt", ".txt.gz", ".md")
# The mark that text collections put between documents of one file.
DOCUMENT_END = "<|endoftext|>"
KINDS = (
    "PATH.jsonl[.gz]",
    "PATH.json",
    "PATH.csv[.gz]",
    "PATH.parquet",
    "PATH.txt[.gz] or PATH.md",
    "a folder of one of them",
    "hub:OWNER/NAME[/SUBSET][:SPLIT][@REVISION]",
    "world:NAME[/SLICE][?count=N&seed=S]",
)
WORLD_NAMES = ("corpus", "demonstrations", "prompts", "comparisons", "judgements")


class Row(NamedTuple):
    """One row: its columns, `where` it stands (for messages) and the `file` (or data set) that holds it."""

    value: dict[str, Any]
    where: str
    file: str


def read_rows(source: str, *, criterion: str = "", max_rows: int = 0, lines: bool = False) -> Iterator[Row]:
    """The rows of a source, at most `max_rows` of them (0: all).

    A text file gives rows of the one column `text`: its documents, or with `lines` its non-blank lines as the
    column `prompt`. `criterion` is passed on to the gold world. Raises BadInput for whatever cannot be read.
    """
    rows = _open(source, criterion, max_rows, lines)
    for count, row in enumerate(rows, start=1):
        yield row
        if count == max_rows:
            return


def split_columns(source: str) -> tuple[str, dict[str, str]]:
    """A source and the columns that it names itself: `PATH?prompt=question&completion=answer`.

    `world:` has settings of its own there, and a file whose name holds the question mark is that file.
    """
    if source.startswith("world:") or "?" not in source or Path(source).exists():
        return source, {}
    bare, _, query = source.rpartition("?")
    pairs = [pair.partition("=") for pair in re.split("[&,]", query)]
    if any(not (name and equals and path) for name, equals, path in pairs):
        raise BadInput(f"{source}: after '?' write FIELD=NAME, several of them joined by ',' or '&'.")
    return bare, {name: path for name, _, path in pairs}


def _open(source: str, criterion: str, max_rows: int, lines: bool) -> Iterator[Row]:
    scheme = re.match(r"([A-Za-z][A-Za-z_]+):", source)
    if scheme is None:
        return _read_path(Path(source).expanduser(), lines)
    if scheme[1] == "hub":
        return _read_hub(source, max_rows)
    if scheme[1] == "world":
        return _read_world(source, criterion)
    raise BadInput(f"{source}: unknown kind of source '{scheme[1]}:'; known are {'; '.join(KINDS)}.")


# Local files


def _read_path(path: Path, lines: bool) -> Iterator[Row]:
    try:
        if path.is_dir():
            files = _files_below(path)
        elif path.exists():
            files = [path]
        else:
            raise BadInput(f"{path}: there is no such file or folder.{_nearest(path)}")
        for file in files:
            yield from _read_file(file, lines)
    except OSError as error:
        raise BadInput(f"{error.filename or path}: cannot be read ({error.strerror or error}).") from error


def _files_below(folder: Path) -> list[Path]:
    inside = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    rows = [file for file in inside if file.name.endswith(ROW_ENDINGS)]
    texts = [file for file in inside if file.name.endswith(TEXT_ENDINGS)]
    # A README.md beside data files describes them; it is not data.
    plain = [file for file in texts if not file.name.endswith(".md")]
    if rows and plain:
        raise BadInput(
            f"{folder}: holds both data files ({rows[0].name} …) and text files ({plain[0].name} …); "
            "name one file, or a folder with one kind."
        )
    if not rows and not texts:
        raise BadInput(f"{folder}: holds no file that ends in {', '.join(ROW_ENDINGS + TEXT_ENDINGS)}.")
    return rows or texts


def _nearest(path: Path) -> str:
    existing = path.parent
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if existing != path.parent:
        return f" The last part of the path that exists is {existing}."
    names = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    if near:
        return f" Near it: {', '.join(sorted(near))}."
    listed = ", ".join(sorted(names)[:8]) or "nothing"
    return f" In {path.parent} there is: {listed}{' …' if len(names) > 8 else ''}."


def _read_file(path: Path, lines: bool) -> Iterator[Row]:
    if path.name.endswith(".parquet"):
        return _read_parquet(path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _read_jsonl(path)
    if path.name.endswith((".json", ".json.gz")):
        return _read_json(path)
    if path.name.endswith((".csv", ".csv.gz")):
        return _read_csv(path)
    if path.name.endswith(TEXT_ENDINGS):
        return _read_lines(path) if lines else _read_text(path)
    raise BadInput(f"{path}: unknown ending; a file ends in {', '.join(('.json', *ROW_ENDINGS, *TEXT_ENDINGS))}.")


def _decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based number, text) of each line; only the newline ends a line, never U+2028 and the like."""
    opened = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if b"\0" in raw or (number == 1 and raw.startswith((b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"%PDF"))):
                    raise BadInput(f"{path}:{number}: this is a binary file, not text; check the file or its ending.")
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise BadInput(
                        f"{path}:{number}: not valid UTF-8 (byte {error.start + 1} of the line); "
                        "convert the file to UTF-8."
                    ) from None
                yield number, text
    except gzip.BadGzipFile as error:
        raise BadInput(
            f"{path}:{number + 1}: not a gzip file, or a damaged one ({error}); check the file or its ending."
        ) from None
    except (EOFError, zlib.error):
        raise BadInput(
            f"{path}:{number + 1}: the gzip file is cut short or damaged here; copy or download it again."
        ) from None
    if number == 0:
        raise BadInput(f"{path}: the file is empty; give another, or make it again.")


def _filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers. Raises BadInput where there is none."""
    found = False
    for number, line in _decoded_lines(path):
        if line.strip():
            found = True
            yield number, line
    if not found:
        raise BadInput(f"{path}: the file is empty (only blank lines); give another, or make it again.")


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in _filled_lines(path):
        yield Row(_object(line, f"{path}:{number}"), f"{path}:{number}", str(path))


def _read_json(path: Path) -> Iterator[Row]:
    text = "".join(line for _, line in _decoded_lines(path))
    value = _parse_json(text, str(path), counts_lines=True)
    if not isinstance(value, list):
        raise BadInput(
            f"{path}: holds one JSON {_name(value)} where a list of objects is due; one object a line is a .jsonl file."
        )
    if not value:
        raise BadInput(f"{path}: the list is empty; give another file, or make it again.")
    for number, entry in enumerate(value, start=1):
        where = f"{path} entry {number}"
        if not isinstance(entry, dict):
            raise BadInput(f"{where}: is a JSON {_name(entry)}; each entry must be an object with named columns.")
        yield Row(entry, where, str(path))


def _read_csv(path: Path) -> Iterator[Row]:
    """Rows of a table whose first line names the columns. Every cell is text; a quoted one may hold line breaks."""
    reader = csv.reader((line for _, line in _decoded_lines(path)), strict=True)
    names: list[str] = []
    number, found = 0, False
    try:
        for cells in reader:
            where, number = f"{path}:{number + 1}", reader.line_num
            if not names:
                names = cells
                continue
            if not cells:
                continue
            if len(cells) != len(names):
                raise BadInput(f"{where}: has {len(cells)} cells where the first line names {len(names)} columns.")
            found = True
            yield Row(dict(zip(names, cells, strict=True)), where, str(path))
    except csv.Error as error:
        raise BadInput(f"{path}:{number + 1}: not a readable row of a CSV table ({error}).") from None
    if not found:
        raise BadInput(f"{path}: holds no rows below the names of the columns; give another, or make it again.")


def _object(line: str, where: str) -> dict[str, Any]:
    value = _parse_json(line, where)
    if not isinstance(value, dict):
        raise BadInput(f"{where}: is a JSON {_name(value)}; each line must be an object with named columns.")
    return value


def _parse_json(text: str, where: str, counts_lines: bool = False) -> Any:
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            # Half of a surrogate pair parses but is no text: no tokenizer takes it.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if counts_lines else where
        raise BadInput(
            f"{place}: not valid JSON ({error.msg}, column {error.colno}); mend what stands there, or take it out."
        ) from None
    except UnicodeEncodeError:
        raise BadInput(
            f"{where}: holds half of a surrogate pair (\\ud800–\\udfff), which is not text; mend that escape."
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{where}: not usable JSON ({type(error).__name__}: a number too long or nesting too deep)."
        ) from None
    return value


def _name(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _read_text(path: Path) -> Iterator[Row]:
    """Rows of `text`: the whole file, or its pieces where it separates documents with <|endoftext|>."""
    start, found = 1, False
    held: list[str] = []
    for number, line in _decoded_lines(path):
        *ends, rest = line.split(DOCUMENT_END)
        for piece in ends:
            text = "".join([*held, piece]).strip("\n")
            if text.strip():
                found = True
                yield Row({"text": text}, f"{path}:{start}", str(path))
            start, held = number, []
        held.append(rest)
    text = "".join(held).strip("\n")
    if text.strip():
        yield Row({"text": text}, f"{path}:{start}", str(path))
    elif not found:
        raise BadInput(f"{path}: the file is empty (only white space); give another, or make it again.")


def _read_lines(path: Path) -> Iterator[Row]:
    for number, line in _filled_lines(path):
        yield Row({"prompt": line.strip()}, f"{path}:{number}", str(path))


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise BadInput(
            f"{path}: reading parquet needs pyarrow; install it with: pip install 'accord[parquet]'"
        ) from None
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: the file is empty; give another, or make it again.")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(value, f"{path} row {number}", str(path))
    except (ValueError, OSError) as error:
        # pyarrow's own errors are ValueErrors; those of the rows' readers are BadInput and pass.
        raise BadInput(f"{path}: not a readable parquet file, after row {number} ({_first_line(error)}).") from None
    if number == 0:
        raise BadInput(f"{path}: the file holds no rows; give another, or make it again.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# Hub and world


HUB = re.compile(r"hub:(?P<name>[^/:@]+/[^/:@]+)(?:/(?P<subset>[^:@]+))?(?::(?P<split>[^@]+))?(?:@(?P<revision>.+))?")


def _read_hub(source: str, max_rows: int) -> Iterator[Row]:
    match = HUB.fullmatch(source)
    if match is None:
        raise BadInput(
            f"{source}: write hub:OWNER/NAME[/SUBSET][:SPLIT][@REVISION], for example hub:Anthropic/hh-rlhf:train."
        )
    try:
        from datasets import load_dataset
    except ImportError:
        raise BadInput(
            f"{source}: reading from the hub needs datasets; install it with: pip install 'accord[hf]'"
        ) from None
    try:
        # Streaming fetches no more than the rows asked for.
        table = load_dataset(
            match["name"],
            name=match["subset"],
            split=match["split"] or "train",
            revision=match["revision"],
            streaming=max_rows > 0,
        )
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{source}: cannot be had from the hub ({type(error).__name__}: {_first_line(error)})."
        ) from None
    number = 0
    try:
        for number, value in enumerate(table, start=1):
            yield Row(dict(value), f"{source} row {number}", source)
    except OSError as error:
        raise BadInput(f"{source}: cannot be read on after row {number} ({_first_line(error)}).") from None
    if number == 0:
        raise BadInput(f"{source}: holds no rows.")


def _read_world(source: str, criterion: str) -> Iterator[Row]:
    name, settings = parse_world(source)
    if name in ("comparisons", "judgements"):
        settings["criterion"] = criterion or ("helpful" if name == "comparisons" else "harmless")
    from accord import world

    try:
        records: list[Record] = getattr(world, name)(**settings)
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from None
    for number, record in enumerate(records, start=1):
        yield Row(to_row(record), f"{source} record {number}", source)


def parse_world(source: str) -> tuple[str, dict[str, Any]]:
    """`world:NAME[/SLICE][?count=N&seed=S]` as the name of a function of `accord.world` and its arguments."""
    body, _, query = source.removeprefix("world:").partition("?")
    name, _, part = body.partition("/")
    if name not in WORLD_NAMES:
        near = difflib.get_close_matches(name, WORLD_NAMES, n=1)
        raise BadInput(
            f"{source}: the gold world has no '{name}'{f'; did you mean {near[0]}' if near else ''}; "
            f"it has {', '.join(WORLD_NAMES)}."
        )
    # The corpus and the demonstrations have a size of their own; the rest has none.
    settings: dict[str, Any] = {} if name in ("corpus", "demonstrations") else {"count": 1000}
    if part:
        if name != "prompts":
            raise BadInput(f"{source}: only world:prompts has slices.")
        settings["slice"] = part
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in ("count", "seed"):
            raise BadInput(f"{source}: unknown setting '{key}'; known are count and seed.")
        if not value.isdecimal() or (key == "count" and int(value) == 0):
            raise BadInput(f"{source}: {key} must be a whole number{' above 0' if key == 'count' else ''}.")
        settings[key] = int(value)
    return name, settings
