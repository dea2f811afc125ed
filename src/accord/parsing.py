"""Command lines and YAML files to configs, and what is said of those that are wrong."""

import argparse
import inspect
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from accord.commands import COMMANDS
from accord.config import Config, Sources, is_everyday
from accord.errors import BadInput, did_you_mean


def parse(command: str, arguments: Sequence[str]) -> Config | None:
    """The command's config from YAML and dotted flags; None when help was printed.

    Raises BadInput that names the key, with the nearest spelling of one that does not exist.
    """
    cls = COMMANDS[command].config
    asked = [place for place, argument in enumerate(arguments) if argument in ("-h", "--help")]
    if asked:
        print(build_parser(command, every=list(arguments[asked[0] + 1 :][:1]) == ["all"]).format_help(), end="")
        return None
    try:
        values = build_parser(command).parse_args(_spell_out(cls, arguments)).as_dict()
    except SystemExit as stop:  # --print_config
        if stop.code in (0, None):
            return None
        raise
    except (argparse.ArgumentError, TypeError, ValueError, OSError) as error:
        message = _explain(str(error), cls)
        if "arsing config" in message and "--config" in arguments[:-1]:
            message = f"{arguments[list(arguments).index('--config') + 1]}: {message}"
        raise BadInput(message) from None
    values.pop("config", None)
    try:
        return cls(**values)
    except ValidationError as error:
        raise BadInput(_explain_validation(error)) from None


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
            return self.parse_string(Path(str(path)).read_text(encoding="utf-8"), **options)

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
            options: dict[str, object] = {"type": field.annotation, "help": field.description}
            if not field.is_required():
                options["default"] = field.default
            if name != positional:
                if field.is_required():
                    options["required"] = True
                group.add_argument(f"--{name}", **options, metavar=_metavar(name, field.annotation))
            elif field.annotation == list[str]:
                options |= {"type": str, "nargs": "+" if field.is_required() else "*"}
                parser.add_argument(name, **options)
            else:
                parser.add_argument(name, **options)
    return parser


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
    "adapters",
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


def _join_lists(cls: type[Config], arguments: Sequence[str]) -> list[str]:
    """Knobs that are lists of texts, each as one JSON list behind the others."""
    lists = {f"--{name}" for name, field in cls.model_fields.items() if field.annotation == list[str]}
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


def _explain(message: str, cls: type[Config]) -> str:
    """The parser's message in one line, with the nearest knob for one that does not exist."""
    flat = " ".join(re.sub(r"For further information visit \S+", "", message).split())
    unknown = re.search(r"[Uu]nrecognized arguments: (--)?([\w.-]+)", flat) or re.search(
        r"(Key|key|option|Option) [\"'](--)?([\w.-]+)[\"'] (is not expected|does not exist)", flat
    )
    if unknown:
        key = unknown.groups()[-1] if unknown.lastindex == 2 else unknown.group(3)
        if unknown.lastindex == 2 and not unknown.group(1):
            return f"{key!r} stands alone; a value follows its knob, --knob value"
        return f"unknown key {key!r}{did_you_mean(key.split('.')[0], cls.model_fields)}"
    missing = re.search(r"arguments are required: (.+)", flat)
    if missing:
        names = [name.strip() for name in missing.group(1).split(",")]
        positional = next(command.positional for command in COMMANDS.values() if command.config is cls)
        return "missing " + ", ".join(_positional_usage(cls, n) if n == positional else f"--{n}" for n in names)
    wrong = re.fullmatch(r"Parser key \"([\w.]+)\": (?:Expected a )?(.+)", flat)
    if wrong:
        key, text = wrong.groups()
        kinds = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
        text = re.sub(r"<class '(\w+)'>", lambda kind: kinds.get(kind[1], kind[1]), text)
        text = re.sub(r"typing.Literal\[(.+?)\]", lambda names: "one of " + names[1].replace("'", ""), text)
        text = re.sub(r"^dict\b", f"names, --{key}.NAME VALUE", text)
        flat = f"--{key}: expected {text}" if "Expected a" in flat else f"--{key}: {text}"
    flat = re.sub(r"\[type=[^\]]*\]", "", flat)
    return re.sub(r"\d+ validation errors? for [\w-]+", "", flat).strip()


def _explain_validation(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        parts.append(f"--{key}: {text}" if key else text)
    return "; ".join(parts)
