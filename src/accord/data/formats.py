"""Text files to rows: JSON lines, JSON lists, CSV tables, plain text, each row with its place.

Everything wrong with a file is said here, with the file and the 1-based line; the text of a row is never
quoted, because preference data holds text that does not belong into a terminal.
"""

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from accord.errors import BadInput

# The mark that text collections put between documents of one file.
DOCUMENT_END = "<|endoftext|>"
WIDEST_CELL = 2**31 - 1  # csv refuses cells of more than 131,072 characters; a C long has 32 bits on Windows
BINARY = (b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"%PDF")


class Row(NamedTuple):
    """One row: its columns, `where` it stands (for messages) and the `file` (or data set) that holds it."""

    value: dict[str, Any]
    where: str
    file: str


def _decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based number, text) of each line; only the newline ends a line, never U+2028 and the like."""
    opened = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if number == 1 and (encoding := _other_unicode(raw)):
                    raise BadInput(
                        f"{path}:1: this is {encoding} text; make it UTF-8, for example with: "
                        f"iconv -f {encoding} -t UTF-8 {path.name} > NEW"
                    )
                if b"\0" in raw or (number == 1 and raw.startswith(BINARY)):
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


def _other_unicode(start: bytes) -> str:
    """UTF-16 or UTF-32, by its mark or by the zeros of plain letters; empty for neither."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    for place, name in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        half, other = start[place:-1:2], start[1 - place : -1 : 2]
        if len(half) > 4 and not any(half) and all(other):
            return name
    return ""


def _filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers. Raises BadInput where there is none."""
    found = False
    for number, line in _decoded_lines(path):
        if line.strip():
            found = True
            yield number, line
    if not found:
        raise BadInput(f"{path}: the file is empty (only blank lines); give another, or make it again.")


def read_jsonl(path: Path, column: str) -> Iterator[Row]:
    """An object a line; or a JSON text a line, which becomes the one `column`."""
    texts = ""
    for number, line in _filled_lines(path):
        where = f"{path}:{number}"
        value = _parse_json(line, where)
        texts = texts or ("text" if isinstance(value, str) else "objects")
        if texts == "text" and isinstance(value, str):
            yield Row({column: value}, where, str(path))
        elif texts == "objects" and isinstance(value, dict):
            yield Row(value, where, str(path))
        else:
            due = "must be text, as the first is" if texts == "text" else "must be an object with named columns"
            raise BadInput(f"{where}: is a JSON {_name(value)}; each line {due}.")


def read_json(path: Path) -> Iterator[Row]:
    """The objects of one list."""
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


def read_csv(path: Path) -> Iterator[Row]:
    """Rows of a table whose first line names the columns. Every cell is text; a quoted one may hold line breaks."""
    csv.field_size_limit(WIDEST_CELL)
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


def read_text(path: Path) -> Iterator[Row]:
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


def read_lines(path: Path) -> Iterator[Row]:
    """A prompt a line."""
    for number, line in _filled_lines(path):
        yield Row({"prompt": line.strip()}, f"{path}:{number}", str(path))
