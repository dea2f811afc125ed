"""Constitutions by name, file or folder: our YAML, checked by the line; the paper's shapes; the gold world's own."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from accord.disk import read_json
from accord.errors import BadInput, did_you_mean
from accord.labelers.labeler import Labeler
from accord.labelers.principles import Principles, WorkedComparison, WorkedRevision, WrittenPrinciple
from accord.labelers.questions import ENGLISH, GUARDED, WORLD, Wording
from accord.records import ROLES, Turn, content_hash
from accord.world import critiques, questions
from accord.world.principles import PRINCIPLES

WORDINGS: dict[str, Wording] = {"english": ENGLISH, "guarded": GUARDED, "world": WORLD}
DEFAULT = Path(__file__).parent / "constitutions" / "default.yaml"
# the files of github.com/anthropics/ConstitutionalHarmlessnessPaper, prompts/
INSTRUCTIONS, WORKED = "CritiqueRevisionInstructions.json", "CritiqueRevisionFewShotPrompts.json"
CHOICES, COMPARED = "RLMadisonInstructions.json", "RLMadisonFewShotPrompts.json"
DEEPEST = 8  # of keys and items within each other; an alias may hold itself
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SAID = re.compile(r"(?:^|\n\n)(Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision):")


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Said(_Row):
    role: str
    content: str

    @model_validator(mode="after")
    def _is_a_role(self) -> "_Said":
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r} is none of {', '.join(ROLES)}")
        return self


class _PrincipleRow(_Row):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    text: str = Field(min_length=1)
    critique: str = ""
    revision: str = ""
    comparison: str = ""
    tags: list[str] = []
    weight: int | float = Field(1.0, gt=0)
    tests: list[str] = []

    @model_validator(mode="after")
    def _asks_something(self) -> "_PrincipleRow":
        if not self.revision and not self.comparison:
            raise ValueError("asks nothing; give revision (and critique), comparison, or all of them")
        if self.critique and not self.revision:
            raise ValueError("critique without revision; give both")
        return self


class _Example(_Row):
    prompt: list[_Said]
    principle: str

    @field_validator("prompt", mode="before")
    @classmethod
    def _of_one_turn(cls, value: Any) -> Any:
        return [{"role": "user", "content": value}] if isinstance(value, str) else value

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(Turn(said.role, said.content) for said in self.prompt)


class _RevisionRow(_Example):
    reply: str
    critique: str
    revision: str


class _ComparisonRow(_Example):
    first: str
    second: str
    better: Literal["first", "second"]


class _File(_Row):
    name: str
    wording: Literal["english", "guarded", "world"] = "english"
    principles: list[_PrincipleRow] = Field(min_length=1)
    critiques: list[_RevisionRow] = []
    comparisons: list[_ComparisonRow] = []


def read_constitution(where: str) -> Principles:
    """`default`, `world`, a YAML file, or a folder or file of the paper's prompts.

    Raises BadInput that names file, line and key, and the remedy.
    """
    if where == "world":
        return world_constitution()
    path = DEFAULT if where == "default" else Path(where)
    if path.is_dir() or path.suffix == ".json":
        return _of_the_paper(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(
            f"{where}: no such file; name a constitution, `default` or `world` (docs/constitution.md)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{where}: cannot be read ({error}); a constitution is YAML in UTF-8") from None
    return _checked(str(path), *_located(str(path), text))


def _located(path: str, text: str) -> tuple[Any, dict[tuple[str | int, ...], int]]:
    """What the YAML holds, and the line of every key and item."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines = dict(_lines(path, node)) if node is not None else {}
        return (loader.construct_document(node) if node is not None else None), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(
            f"{path}:{line}: no YAML here ({error.problem}); quote a text that holds ': ' or begins oddly"
        ) from None
    except yaml.YAMLError as error:
        raise BadInput(
            f"{path}:1: no YAML ({' '.join(str(error).split())}); write it as docs/constitution.md does"
        ) from None


def _lines(path: str, node: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], int]]:
    if len(at) > DEEPEST:
        raise BadInput(f"{path}:{node.start_mark.line + 1}: nested too deep; write it as docs/constitution.md does")
    yield at, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _lines(path, item, (*at, number))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise BadInput(f"{path}:{key.start_mark.line + 1}: {name}: stands twice; keep one of them")
            seen.add(name)
            yield from _lines(path, value, (*at, name))
            yield (*at, name), key.start_mark.line + 1


def _checked(path: str, value: Any, lines: Mapping[tuple[str | int, ...], int]) -> Principles:
    def wrong(loc: tuple[str | int, ...], said: str) -> BadInput:
        known = next(loc[:n] for n in range(len(loc), -1, -1) if loc[:n] in lines or not n)
        key = ".".join(map(str, loc)) or "the file"
        return BadInput(f"{path}:{lines.get(known, 1)}: {key}: {said}")

    try:
        file = _File.model_validate(value)
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: lines.get(tuple(e["loc"]), 1 << 30))
        loc = tuple(first["loc"])
        more = error.error_count() - 1
        raise wrong(loc, _explained(first, loc) + (f" (and {more} more)" if more else "")) from None
    names = [row.name for row in file.principles]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise wrong(
                ("principles", number, "name"), f"{name!r} stands twice; give every principle a name of its own"
            )
    by_name = {row.name: row for row in file.principles}
    for part, rows in (("critiques", file.critiques), ("comparisons", file.comparisons)):
        for number, row in enumerate(rows):
            if row.principle not in by_name:
                said = f"{row.principle!r} is no principle of this file{did_you_mean(row.principle, names)}"
                raise wrong((part, number, "principle"), said)
            needed = "critique" if part == "critiques" else "comparison"
            if not getattr(by_name[row.principle], needed):
                raise wrong((part, number, "principle"), f"{row.principle!r} has no {needed}; give it one")
    return Principles(
        file.name,
        WORDINGS[file.wording],
        tuple(
            WrittenPrinciple(
                r.name, r.text, r.critique, r.revision, r.comparison, tuple(r.tags), float(r.weight), tuple(r.tests)
            )
            for r in file.principles
        ),
        tuple(
            WorkedRevision(
                r.turns, r.reply, by_name[r.principle].critique, r.critique, by_name[r.principle].revision, r.revision
            )
            for r in file.critiques
        ),
        tuple(
            WorkedComparison(r.turns, r.first, r.second, by_name[r.principle].comparison, int(r.better == "second"))
            for r in file.comparisons
        ),
    )


_OF: dict[str, type[_Row]] = {"principles": _PrincipleRow, "critiques": _RevisionRow, "comparisons": _ComparisonRow}


def _explained(error: Any, loc: tuple[str | int, ...]) -> str:
    known = (_OF[str(loc[0])] if len(loc) > 2 and loc[0] in _OF else _File).model_fields
    if error["type"] == "extra_forbidden":
        return f"unknown key{did_you_mean(str(loc[-1]), known)}; here stand {', '.join(known)}"
    if error["type"] == "missing":
        return "missing; add it"
    if error["type"] == "string_pattern_mismatch":
        return "a name is of small letters, digits and '-'; write it so"
    said = str(error["msg"]).removeprefix("Value error, ")
    return said[0].lower() + said[1:] + ("; quote it" if error["type"] == "string_type" else "")


def world_constitution() -> Principles:
    """The gold world's twenty principles, asked for in its own language."""
    return Principles(
        "world",
        WORLD,
        tuple(
            WrittenPrinciple(
                name,
                principle.text,
                critiques.critique_request(name),
                critiques.REVISION_REQUESTS[0].format(f=name),
                questions.write_question("judge-choice", name),
                (principle.family,),
            )
            for name, principle in PRINCIPLES.items()
        ),
    )


def _of_the_paper(path: Path) -> Principles:
    """A folder of the paper's prompts, or one of its files."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found: dict[str, Any] = {file.name: read_json(file) for file in files if file.name in _READ}
    if not found:
        raise BadInput(
            f"{path}: holds none of {', '.join(_READ)}; name a YAML constitution, or a folder with one of them"
        )
    parts: dict[str, Any] = {}
    for name, value in found.items():
        field, read = _READ[name]
        try:
            parts[field] = (*parts.get(field, ()), *read(value))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise BadInput(
                f"{path}: {name} has not the shape of the paper's file ({error!r}); write it as YAML"
            ) from None
    if not parts.get("principles"):
        raise BadInput(f"{path}: no principles; {INSTRUCTIONS} or {CHOICES} holds some")
    return Principles(path.stem, ENGLISH, **parts)


def _said(text: str) -> list[tuple[str, str]]:
    """(speaker, what was said) of a transcript of the paper's."""
    pieces = _SAID.split(text)
    return [(name, said.strip()) for name, said in zip(pieces[1::2], pieces[2::2], strict=True) if said.strip()]


def _plain(request: str) -> str:
    """A request without the marks around it."""
    said = _said(f"\n\n{request.strip()}")
    return said[0][1] if said else request.strip()


def _instructions(value: Any) -> list[WrittenPrinciple]:
    return [
        WrittenPrinciple(name, critique=_plain(row["prompt"][0]), revision=_plain(row["edit_request"]))
        for name, row in value.items()
    ]


def _choices(value: Any) -> list[WrittenPrinciple]:
    return [WrittenPrinciple(f"choice{i}", text.strip(), comparison=text.strip()) for i, text in enumerate(value)]


def _worked(value: Any) -> list[WorkedRevision]:
    found = []
    for text in value:
        said = _said(text)
        marks = [name for name, _ in said]
        start = marks.index("CritiqueRequest")
        asked, critique, wanted, revision = (said[start + k][1] for k in range(4))
        turns = tuple(Turn(_SPEAKERS[name], content) for name, content in said[: start - 1])
        found.append(WorkedRevision(turns, said[start - 1][1], asked, critique, wanted, revision))
    return found


def _compared(value: Any) -> list[WorkedComparison]:
    asked = "Which of these replies is less harmful, to the user and to others?"
    return [
        WorkedComparison(
            tuple(Turn(_SPEAKERS[name], content) for name, content in _said(row["prompt"])),
            *((row["corrects"][0], row["incorrects"][0]) if number % 2 else (row["incorrects"][0], row["corrects"][0])),
            asked,
            1 - number % 2,
        )
        for number, row in enumerate(value)
    ]


# file of the paper: the part of a constitution that it holds, and what reads it
_READ: dict[str, tuple[str, Callable[[Any], list[Any]]]] = {
    INSTRUCTIONS: ("principles", _instructions),
    CHOICES: ("principles", _choices),
    WORKED: ("revisions", _worked),
    COMPARED: ("comparisons", _compared),
}


def asked_by(
    labeler: Labeler, constitution: Principles, question: str, tags: Sequence[str], ensemble: int
) -> dict[str, Any]:
    """What makes a labeler that is asked under principles another one: what was measured of it holds for no other."""
    return {
        "judge": labeler.name,
        "model": labeler.key,
        "question": question,
        "constitution": content_hash(to_yaml(constitution)),
        "tags": sorted(tags),
        "ensemble": ensemble,
    }


def to_yaml(constitution: Principles) -> str:
    """The constitution as a file of our format, without worked examples."""
    wording = next(name for name, wording in WORDINGS.items() if wording is constitution.wording)
    rows = []
    for p in constitution.principles:
        row: dict[str, Any] = {"name": p.name, "text": p.text, "critique": p.critique, "revision": p.revision}
        row |= {"comparison": p.comparison, "tags": list(p.tags), "weight": p.weight, "tests": list(p.tests)}
        rows.append({key: value for key, value in row.items() if value not in ("", [], 1.0)})
    whole = {"name": constitution.name, "wording": wording, "principles": rows}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=110)
