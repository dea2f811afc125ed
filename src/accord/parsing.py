"""Command lines and YAML files to configs, and what is said of those that are wrong.

jsonargparse reads words and files, and takes any text for any knob: what a value must be is the config's own business.
Pydantic's findings come by kind, so that no sentence has to be read to say them in the words of a command line.
"""

import argparse
import functools
import inspect
import json
import operator
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from accord.commands import COMMANDS
from accord.config import Config, Sources, is_everyday
from accord.disk import read_yaml
from accord.errors import BadInput, did_you_mean

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", list: "a list"}
WRONG_KIND = ("_type", "_parsing", "_from_float", "literal_error")  # endings of pydantic's names of such findings


def parse(command: str, arguments: Sequence[str]) -> Config | None:
    """The command's config from YAML and dotted flags; None when help was printed.

    Raises BadInput that names the key, with the nearest spelling of one that does not exist.
    """
    cls, positional = COMMANDS[command].config, COMMANDS[command].positional
    asked = [place for place, argument in enumerate(arguments) if argument in ("-h", "--help")]
    if asked:
        print(build_parser(command, every=list(arguments[asked[0] + 1 :][:1]) == ["all"]).format_help(), end="")
        return None
    refuse_unknown(_knobs_named(arguments), cls)
    try:
        values = build_parser(command).parse_args(_spell_out(cls, arguments)).as_dict()
    except SystemExit as stop:  # --print_config
        if stop.code in (0, None):
            return None
        raise
    except argparse.ArgumentError as error:
        raise BadInput(f"{' '.join(str(error).split())}; a value follows its knob, --knob value") from None
    values.pop("config", None)
    unsaid = [name for name, field in cls.model_fields.items() if field.is_required() and not values[name]]
    try:
        return cls(**{name: value for name, value in values.items() if name not in unsaid})
    except ValidationError as error:
        raise BadInput("; ".join(explain(cls, positional, error))) from None


def refuse_unknown(names: Iterable[str], cls: type[Config], where: str = "") -> None:
    """BadInput for a name that is no knob, and for one inside a knob that has no names in it."""
    for name in names:
        knob, dot, _ = name.partition(".")
        field = cls.model_fields.get(knob)
        if field is None or (dot and not takes(field, dict)):
            raise BadInput(f"{where}unknown key {name!r}{did_you_mean(knob, cls.model_fields)}")


def _knobs_named(arguments: Sequence[str]) -> list[str]:
    """The names that words of a command line say, without those that every command knows."""
    named = [word[2:].partition("=")[0] for word in arguments if word.startswith("--") and word != "--"]
    return [name for name in named if name not in ("config", "print_config")]


@functools.cache
def build_parser(command: str, *, every: bool = True) -> Any:
    """The jsonargparse parser of one command, with `every` knob or with the everyday ones alone.

    `format_help()` of it is what --help prints.
    """
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    cls, positional = COMMANDS[command].config, COMMANDS[command].positional
    hidden = [] if every else [name for name, field in cls.model_fields.items() if not is_everyday(field)]
    more = f"       accord {command} --help all shows {len(hidden)} more knobs\n" if hidden else ""
    shown = f" {_positional_usage(cls, positional)}" if positional else ""
    required = {name for name, field in cls.model_fields.items() if field.is_required()}

    class Help(DefaultHelpFormatter):
        """Knob, unit and default; the types that argparse would repeat only fill the screen."""

        def __init__(self, prog: str) -> None:
            super().__init__(prog, max_help_position=32, width=129)

        def _format_usage(self, *args: object) -> str:
            return f"usage: accord {command}{shown} [--config FILE.yaml] [--knob value ...]\n{more}\n"

        def _get_help_string(self, action: argparse.Action) -> str:
            text = action.help or ""
            if action.dest in required:
                return f"{text} (required)"
            if action.default in (None, argparse.SUPPRESS, "", {}, []):
                return text
            default = str(action.default).lower() if isinstance(action.default, bool) else action.default
            return f"{text} ({default})"

    class Parser(ArgumentParser):
        """Reads its files as UTF-8, whatever the locale."""

        def parse_path(self, path: Any, **options: Any) -> Any:
            text = read_knobs(Path(str(path)), cls)
            return self.parse_string(text, **options)

    parser = Parser(
        prog=f"accord {command}",
        description=cls.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=Help,
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file with any of the knobs below")
    for action in parser._actions:
        if action.dest == "help":
            action.help = "show this text and exit"
        if action.dest == "print_config":
            action.help, action.metavar = "print all knobs as YAML for --config and exit", ""
    for title, names in grouped_fields(cls, hidden).items():
        group = parser.add_argument_group(title)
        for name in names:
            field = cls.model_fields[name]
            options: dict[str, object] = {"type": or_text(field.annotation), "help": field.description}
            if not field.is_required():
                options["default"] = field.default
            if name != positional:
                group.add_argument(f"--{name}", **options, metavar=_metavar(name, field.annotation))
            elif field.annotation == list[str]:
                parser.add_argument(name, **{**options, "type": str, "nargs": "*"})
            else:
                parser.add_argument(name, **options, nargs="?")
    return parser


def read_knobs(path: Path, cls: type[Config]) -> str:
    """The text of a YAML file of knobs; BadInput with its name where a key is no knob or a value cannot be one."""
    found = read_yaml(path, "--config")
    if not isinstance(found, dict):
        raise BadInput(f"--config {path}: a mapping of knobs is needed, one `knob: value` a line")
    refuse_unknown(map(str, found), cls, f"--config {path}: ")
    for name, value in found.items():
        field = cls.model_fields[name]
        kind: Any = field.annotation
        try:
            TypeAdapter(Annotated[kind, *field.metadata] if field.metadata else kind).validate_python(value)
        except ValidationError as error:
            problems = [{**problem, "loc": (name, *problem["loc"])} for problem in error.errors()]
            raise BadInput(f"--config {path}: {'; '.join(wrong_with(name, field, problems))}") from None
    return path.read_text(encoding="utf-8")


def or_text(annotation: Any) -> Any:
    """The type with a text wherever it wants something else; mappings and lists first, which a text could be too."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        members = sorted(get_args(annotation), key=lambda one: get_origin(one) not in (dict, list))
        return functools.reduce(operator.or_, map(or_text, members))
    if origin is dict:
        return dict[str, or_text(get_args(annotation)[1])] | str  # type: ignore[misc]
    if origin is list:
        return list[or_text(get_args(annotation)[0])] | str  # type: ignore[misc]
    return str if origin is Literal else annotation if annotation in (str, NoneType) else annotation | str


# what knobs are about, in the order of --help; a command's own come first
HEADINGS = (
    "knobs",
    "limits",
    "distance to the reference",
    "advantages and critics",
    "against forgetting",
    "watching",
    "drawing replies",
    "asking a server",
    "training",
    "run folder",
)


def grouped_fields(cls: type[Config], hidden: Collection[str] = ()) -> dict[str, list[str]]:
    """Knobs by heading, without hidden ones: the command's own, then those that it shares with others."""
    groups: dict[str, list[str]] = {heading: [] for heading in HEADINGS}
    for name in (name for name in cls.model_fields if name not in hidden):
        base = next((b for b in reversed(cls.__mro__) if name in inspect.get_annotations(b)), cls)
        groups[vars(base).get("heading", "knobs")].append(name)
    own = list(inspect.get_annotations(cls))
    groups["knobs"].sort(key=lambda name: own.index(name) if name in own else len(own))
    return {title: names for title, names in groups.items() if names}


def _positional_usage(cls: type[Config], name: str) -> str:
    field = cls.model_fields[name]
    word = name.upper() if field.annotation is str else name.upper().removesuffix("S")
    several = f"{word} [{word} ...]" if field.is_required() else f"[{word} ...]"
    return word if field.annotation is str else several


def _metavar(name: str, annotation: object) -> str:
    text = str(annotation)
    if "Literal" in text:
        return "{" + ",".join(dict.fromkeys(re.findall(r"'([^']+)'", text))) + "}"
    if annotation == Sources:
        return "SOURCE"
    if annotation == float | dict[str, float]:
        return "X"
    if text.startswith("dict"):
        return "{...}"
    words = {"<class 'int'>": "N", "<class 'float'>": "X", "<class 'bool'>": "[true|false]"}
    return words.get(text, "PATH" if name == "out" else "TEXT")


def _spell_out(cls: type[Config], arguments: Sequence[str]) -> list[str]:
    """`--resume` alone means `--resume true`; a list is given as JSON or as its members, `--x A B` or `--x A --x B`."""
    arguments = _join_lists(cls, arguments)
    switches = {f"--{name}" for name, field in cls.model_fields.items() if field.annotation is bool}
    spelled: list[str] = []
    for position, argument in enumerate(arguments):
        spelled.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        if argument in switches and following.lower() not in ("true", "false", "yes", "no"):
            spelled.append("true")
    return spelled


def _lists_texts(annotation: Any) -> bool:
    """Whether a knob is a list of texts, any or some that are known."""
    if get_origin(annotation) is not list:
        return False
    (member,) = get_args(annotation)
    return member is str or get_origin(member) is Literal


def _join_lists(cls: type[Config], arguments: Sequence[str]) -> list[str]:
    """Knobs that are lists of texts, each as one JSON list behind the others."""
    lists = {f"--{name}" for name, field in cls.model_fields.items() if _lists_texts(field.annotation)}
    joined: list[str] = []
    members: dict[str, list[str]] = {}
    listed = ""
    for position, argument in enumerate(arguments):
        if argument.startswith("--"):
            following = arguments[position + 1] if position + 1 < len(arguments) else "--"
            listed = argument if argument in lists and not following.startswith(("[", "--")) else ""
            if not listed:
                joined.append(argument)
        elif listed:
            members.setdefault(listed, []).append(argument)
        else:
            joined.append(argument)
    for name, values in members.items():
        joined += [name, json.dumps(values)]
    return joined


def explain(cls: type[Config], positional: str, error: ValidationError) -> list[str]:
    """What pydantic found, a part for each knob, in the words of a command line."""
    by_knob: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    missing = []
    for problem in error.errors():
        knob = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "missing" and len(problem["loc"]) == 1:
            missing.append(_positional_usage(cls, knob) if knob == positional else f"--{knob}")
        else:
            by_knob[knob].append(problem)
    parts = ["missing " + ", ".join(missing)] if missing else []
    for knob, problems in by_knob.items():
        if knob:
            parts += wrong_with(knob, cls.model_fields[knob], problems)
        else:
            parts += [said(problem) for problem in problems]
    return parts


def wrong_with(knob: str, field: FieldInfo, problems: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the value of one knob."""
    if len([one for one in alternatives(field) if one is not NoneType]) > 1:
        # each alternative has its own complaint, behind its name: that of the kind that was given counts
        like = [p for p in problems if ("dict" in str(p["loc"][1:2])) == isinstance(p["input"], dict)]
        inside = [{**p, "loc": (knob, *p["loc"][2:])} for p in problems if len(p["loc"]) > 2]
        problems = inside or [{**p, "loc": (knob,)} for p in (like or problems)[:1]]
    texts = []
    for problem in problems:
        name = ".".join(str(part) for part in (knob, *problem["loc"][1:]) if part != "[key]")
        if problem["type"].endswith(WRONG_KIND):
            near = did_you_mean(str(problem["input"]), names) if (names := choices(field)) else ""
            what = wanted(field, knob, inner=len(problem["loc"]) > 1)
            texts.append(f"--{name}: expected {what}, not {problem['input']!r}{near}")
        else:
            texts.append(f"--{name}: {said(problem)}")
    return texts


def said(problem: Mapping[str, Any]) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return text if problem["type"] == "value_error" else f"{text}, not {problem['input']!r}"


def wanted(field: FieldInfo, knob: str, *, inner: bool) -> str:
    """What a knob takes, in words; `inner`: what stands in its mapping or list."""
    kinds: tuple[Any, ...] = alternatives(field)
    if inner:
        holders = [one for one in kinds if (get_origin(one) or one) in (dict, list)]
        member = get_args(holders[0])[-1]
        kinds = get_args(member) if get_origin(member) in (Union, UnionType) else (member,)
    words = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            words.append("one of " + ", ".join(str(name) or "''" for name in get_args(kind)))
        elif (get_origin(kind) or kind) is dict:
            words.append(f"names, --{knob}.NAME VALUE")
        elif kind is not NoneType:
            words.append(KINDS[get_origin(kind) or kind])
    return " or ".join(words)


def choices(field: FieldInfo) -> list[str]:
    """The names that a knob takes."""
    return [str(name) for kind in alternatives(field) if get_origin(kind) is Literal for name in get_args(kind)]


def takes(field: FieldInfo, kind: type) -> bool:
    """Whether a knob takes a mapping or a list."""
    return any((get_origin(one) or one) is kind for one in alternatives(field))


def alternatives(field: FieldInfo) -> tuple[Any, ...]:
    """What a knob may be, one type each."""
    annotation = field.annotation
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
