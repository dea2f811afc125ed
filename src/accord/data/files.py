"""What `--data SOURCE` may name, opened: a file, a folder of them, or what a scheme stands for, as rows."""

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from accord.data.formats import Row, read_csv, read_json, read_jsonl, read_lines, read_text
from accord.data.schemes import read_feedback, read_hub, read_world
from accord.data.tables import read_arrow, read_parquet, saved_files
from accord.errors import BadInput

TEXT_ENDINGS = (".txt", ".txt.gz", ".md")
KINDS = (
    "PATH.jsonl[.gz]",
    "PATH.json",
    "PATH.csv[.gz]",
    "PATH.parquet",
    "PATH.arrow",
    "PATH.txt[.gz] or PATH.md",
    "a folder of one of them",
    "hub:OWNER/NAME[/SUBSET][:SPLIT][@REVISION]",
    "world:NAME[/SLICE][?count=N&seed=S]",
    "feedback:DATABASE[@EVENT]",
)
_TABLES: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".csv": read_csv,
    ".csv.gz": read_csv,
}
ROW_ENDINGS = (".jsonl", ".jsonl.gz", *_TABLES)


def read_rows(source: str, *, criterion: str = "", max_rows: int = 0, lines: bool = False) -> Iterator[Row]:
    """The rows of a source, at most `max_rows` of them (0: all).

    A text file gives rows of the one column `text`: its documents, or with `lines` its non-blank lines as the
    column `prompt`; so do JSON lines of plain text. `criterion` is passed on to the gold world. Raises BadInput for
    whatever cannot be read.
    """
    rows = _open(source, criterion, max_rows, lines)
    for count, row in enumerate(rows, start=1):
        yield row
        if count == max_rows:
            return


def split_columns(source: str) -> tuple[str, dict[str, str]]:
    """A source and the columns that it names itself: `PATH?prompt=question&completion=answer`.

    `world:` and `feedback:` have settings of their own there; a file whose name holds the question mark is that file.
    """
    if source.startswith(("world:", "feedback:")) or "?" not in source or Path(source).exists():
        return source, {}
    bare, _, query = source.rpartition("?")
    pairs = [pair.partition("=") for pair in re.split("[&,]", query)]
    if not all(name and path for name, _, path in pairs):
        raise BadInput(f"{source}: after '?' write FIELD=NAME, several of them joined by ',' or '&'.")
    return bare, {name: path for name, _, path in pairs}


def _open(source: str, criterion: str, max_rows: int, lines: bool) -> Iterator[Row]:
    scheme = re.match(r"([A-Za-z][A-Za-z_]+):", source)
    if scheme is None:
        return _read_path(Path(source).expanduser(), lines)
    if scheme[1] == "hub":
        return read_hub(source, max_rows)
    if scheme[1] == "world":
        return read_world(source, criterion)
    if scheme[1] == "feedback":
        return read_feedback(source)
    raise BadInput(f"{source}: unknown kind of source '{scheme[1]}:'; known are {'; '.join(KINDS)}.")


# Local files


def _read_path(path: Path, lines: bool) -> Iterator[Row]:
    try:
        if path.is_dir():
            files = saved_files(path) or _files_below(path)
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
    for ending, read in _TABLES.items():
        if path.name.endswith(ending):
            return read(path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return read_jsonl(path, "prompt" if lines else "text")
    if path.name.endswith((".json", ".json.gz")):
        return read_json(path)
    if path.name.endswith(TEXT_ENDINGS):
        return read_lines(path) if lines else read_text(path)
    raise BadInput(f"{path}: unknown ending; a file ends in {', '.join(('.json', *ROW_ENDINGS, *TEXT_ENDINGS))}.")
