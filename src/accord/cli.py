"""The table of commands: name → (Config, run). Everything else is parsing and exit codes."""

import argparse
import difflib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from accord import __version__, config
from accord.errors import BadInput, Interrupted

# command: (its knobs, "module:function" imported only when it runs, its positional knob)
COMMANDS: dict[str, tuple[type[config.Config], str, str | None]] = {
    "demo": (config.Demo, "accord.stages.demo:run", None),
    "pretrain": (config.Pretrain, "accord.stages.pretrain:run", None),
    "sft": (config.Sft, "accord.stages.sft:run", None),
    "preference": (config.Preference, "accord.stages.preference:run", None),
    "dpo": (config.Dpo, "accord.stages.dpo:run", None),
    "ppo": (config.Ppo, "accord.stages.ppo:run", None),
    "sample": (config.Sample, "accord.stages.sample:run", None),
    "online": (config.Online, "accord.stages.online:run", None),
    "score": (config.Score, "accord.stages.score:run", None),
    "evaluate preference": (config.EvaluatePreference, "accord.stages.evaluate_preference:run", None),
    "evaluate": (config.Evaluate, "accord.stages.evaluate:run", None),
    "report": (config.Report, "accord.stages.report:run", "runs"),
    "claims": (config.Claims, "accord.claims.runner:run", "names"),
    "chat": (config.Chat, "accord.stages.chat:run", "snapshot"),
    "data": (config.Data, "accord.stages.data:run", "source"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 bad input, 1 failure."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"accord {__version__}")
        return 0
    # a command may be two words: `evaluate` measures snapshots, `evaluate preference` preference models
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    command = " ".join(arguments[:words])
    settings: config.Config | None = None
    try:
        if command not in COMMANDS:
            raise BadInput(f"unknown command {command!r}{did_you_mean(command, COMMANDS)}; `accord --help` lists them")
        settings = parse(command, arguments[words:])
        if settings is None:
            return 0
        module, function = COMMANDS[command][1].split(":")
        getattr(importlib.import_module(module), function)(settings)
        return 0
    except BadInput as error:
        print(f"accord {command}: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(f"accord {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"accord {command}: interrupted", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"accord {command}: {error}; what was saved before is intact, --resume goes on from it",
            file=sys.stderr,
        )
        return 1
    except Exception as error:
        if (explained := _explain_memory(error, settings)) is not None:
            print(f"accord {command}: {explained}", file=sys.stderr)
            return 1
        traceback.print_exc()
        print(
            f"accord {command}: failed (see above); --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 1


def _explain_memory(error: Exception, settings: config.Config | None) -> str | None:
    """What to say of an error that is a lack of memory, with the number to change; None of any other."""
    if "torch" not in sys.modules or not hasattr(settings, "micro_tokens"):
        return None
    from accord.run import decided
    from accord.training.memory import is_out_of_memory, too_much

    if not is_out_of_memory(error):
        return None
    return f"{too_much(decided(settings, 'micro_tokens'))}; with --resume it goes on from the last checkpoint"


def overview() -> str:
    """One line per command, from the first line of its config."""
    lines = ["usage: accord COMMAND [--config FILE.yaml] [--knob value ...]", ""]
    lines += [f"  {name:<21}{(cls.__doc__ or '').splitlines()[0]}" for name, (cls, _, _) in COMMANDS.items()]
    return "\n".join([*lines, "", "accord COMMAND --help shows its knobs."])


def parse(command: str, arguments: Sequence[str]) -> config.Config | None:
    """The command's config from YAML and dotted flags; None when help was printed.

    Raises BadInput that names the key, with the nearest spelling of one that does not exist.
    """
    cls = COMMANDS[command][0]
    try:
        values = build_parser(command).parse_args(_spell_out_switches(cls, arguments)).as_dict()
    except SystemExit as stop:
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


def build_parser(command: str) -> Any:
    """The jsonargparse parser of one command; `format_help()` of it is what --help prints."""
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    cls, _, positional = COMMANDS[command]
    shown = f" {_positional_usage(cls, positional)}" if positional else ""
    required = {name for name, field in cls.model_fields.items() if field.is_required()}

    class Help(DefaultHelpFormatter):
        """Knob, unit and default; the types that argparse would repeat only fill the screen."""

        def __init__(self, prog: str) -> None:
            super().__init__(prog, max_help_position=32, width=129)

        def _format_usage(self, *args: object) -> str:
            return f"usage: accord {command}{shown} [--config FILE.yaml] [--knob value ...]\n\n"

        def _get_help_string(self, action: argparse.Action) -> str:
            text = action.help or ""
            if action.dest in required:
                return f"{text} (required)"
            if action.default in (None, argparse.SUPPRESS, "", {}, []):
                return text
            default = str(action.default).lower() if isinstance(action.default, bool) else action.default
            return f"{text} ({default})"

    parser = ArgumentParser(
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
    for title, names in grouped_fields(cls).items():
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


# bases of the configs: what their knobs are about; a stage's own knobs come first
_SHARED: dict[type, str] = {
    config.LimitKnobs: "limits",
    config.KlKnobs: "distance to the reference",
    config.AdvantageKnobs: "advantages and critics",
    config.MixKnobs: "against forgetting",
    config.WatchKnobs: "watching",
    config.Sampling: "drawing replies",
    config.Rollouts: "drawing replies",
    config.Adapters: "adapters",
    config.Training: "training",
    config.Supervised: "training",
    config.Run: "run folder",
}


def grouped_fields(cls: type[config.Config]) -> dict[str, list[str]]:
    """Knobs by heading: the command's own, then those that it shares with others."""
    groups: dict[str, list[str]] = {"knobs": [], **{title: [] for title in _SHARED.values()}}
    for name in cls.model_fields:
        base = next((b for b in reversed(cls.__mro__) if name in inspect.get_annotations(b)), cls)
        groups[_SHARED.get(base, "knobs")].append(name)
    own = list(inspect.get_annotations(cls))
    groups["knobs"].sort(key=lambda name: own.index(name) if name in own else len(own))
    return {title: names for title, names in groups.items() if names}


def _positional_usage(cls: type[config.Config], name: str) -> str:
    field = cls.model_fields[name]
    word = name.upper() if field.annotation is str else name.upper().removesuffix("S")
    several = f"{word} [{word} ...]" if field.is_required() else f"[{word} ...]"
    return word if field.annotation is str else several


def _metavar(name: str, annotation: object) -> str:
    text = str(annotation)
    if "Literal" in text:
        return "{" + ",".join(re.findall(r"'([^']+)'", text)) + "}"
    if annotation == config.Sources:
        return "SOURCE"
    if annotation == config.PerLimit:
        return "X"
    if text.startswith("dict"):
        return "{...}"
    words = {"<class 'int'>": "N", "<class 'float'>": "X", "<class 'bool'>": "[true|false]"}
    return words.get(text, "PATH" if name == "out" else "TEXT")


def _spell_out_switches(cls: type[config.Config], arguments: Sequence[str]) -> list[str]:
    """`--resume` alone means `--resume true`."""
    switches = {f"--{name}" for name, field in cls.model_fields.items() if field.annotation is bool}
    spelled: list[str] = []
    for position, argument in enumerate(arguments):
        spelled.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        if argument in switches and following.lower() not in ("true", "false", "yes", "no"):
            spelled.append("true")
    return spelled


def did_you_mean(word: str, known: object) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)  # type: ignore[call-overload]
    return f" (did you mean {close[0]}?)" if close else ""


def _explain(message: str, cls: type[config.Config]) -> str:
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
        positional = next(at for known, _, at in COMMANDS.values() if known is cls)
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


if __name__ == "__main__":
    sys.exit(main())
