"""The table of commands: name → (Config, run). Everything else is parsing and exit codes."""

import argparse
import difflib
import importlib
import re
import sys
import traceback
from collections.abc import Sequence

from pydantic import ValidationError

from accord import __version__, config
from accord.errors import BadInput, Interrupted

# command: (its knobs, "module:function" imported only when it runs, its positional knob)
COMMANDS: dict[str, tuple[type[config.Config], str, str | None]] = {
    "demo": (config.Demo, "accord.stages.demo:run", None),
    "pretrain": (config.Pretrain, "accord.stages.pretrain:run", None),
    "sft": (config.Sft, "accord.stages.sft:run", None),
    "preference": (config.Preference, "accord.stages.preference:run", None),
    "ppo": (config.Ppo, "accord.stages.ppo:run", None),
    "sample": (config.Sample, "accord.stages.sample:run", None),
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
    command = arguments[0]
    try:
        if command not in COMMANDS:
            raise BadInput(f"unknown command {command!r}{did_you_mean(command, COMMANDS)}; `accord --help` lists them")
        settings = parse(command, arguments[1:])
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
    except Exception:
        traceback.print_exc()
        print(
            f"accord {command}: failed (see above); --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 1


def overview() -> str:
    """One line per command, from the first line of its config."""
    lines = ["usage: accord COMMAND [--config FILE.yaml] [--knob value ...]", ""]
    lines += [f"  {name:<12}{(cls.__doc__ or '').splitlines()[0]}" for name, (cls, _, _) in COMMANDS.items()]
    return "\n".join([*lines, "", "accord COMMAND --help shows its knobs."])


def parse(command: str, arguments: Sequence[str]) -> config.Config | None:
    """The command's config from YAML and dotted flags; None when help was printed.

    Raises BadInput that names the key, with the nearest spelling of one that does not exist.
    """
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter):
        """Knob, unit and default; the types that argparse would repeat only fill the screen."""

        def __init__(self, prog: str) -> None:
            super().__init__(prog, max_help_position=30, width=110)

        def _format_usage(self, *args: object) -> str:
            first = "" if positional is None else f"{positional.upper()} "
            return f"usage: accord {command} {first}[--config FILE.yaml] [--knob value ...]\n\n"

        def _get_help_string(self, action: argparse.Action) -> str:
            text = action.help or ""
            if action.default in (None, argparse.SUPPRESS, "", {}, []) or "%(default)s" in text:
                return text
            return f"{text} (%(default)s)"

    cls, _, positional = COMMANDS[command]
    parser = ArgumentParser(
        prog=f"accord {command}",
        description=cls.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=Help,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the knobs below")
    for name, field in cls.model_fields.items():
        options: dict[str, object] = {"type": field.annotation, "help": field.description}
        if field.is_required() and name != positional:
            options["required"] = True
        if not field.is_required():
            options["default"] = field.default
        if name == positional:
            options.pop("required", None)
            if field.annotation == list[str]:
                options = {
                    "type": str,
                    "nargs": "*" if not field.is_required() else "+",
                    "help": field.description,
                }
                if not field.is_required():
                    options["default"] = []
            parser.add_argument(name, **options)
        else:
            parser.add_argument(f"--{name}", **options, metavar=_metavar(field.annotation))
    try:
        values = parser.parse_args(_spell_out_switches(cls, arguments)).as_dict()
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        raise
    except (argparse.ArgumentError, TypeError, ValueError, OSError) as error:
        raise BadInput(_explain(str(error), cls)) from None
    values.pop("config", None)
    try:
        return cls(**values)
    except ValidationError as error:
        raise BadInput(_explain_validation(error)) from None


def _metavar(annotation: object) -> str:
    text = str(annotation)
    if "Literal" in text:
        return "{" + ",".join(re.findall(r"'([^']+)'", text)) + "}"
    if text.startswith("dict"):
        return "{...}"
    return {"<class 'int'>": "N", "<class 'float'>": "X", "<class 'bool'>": "true|false"}.get(text, "VALUE")


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
        return f"unknown key {key!r}{did_you_mean(key.split('.')[0], cls.model_fields)}"
    missing = re.search(r"arguments are required: (.+)", flat)
    if missing:
        return "missing " + ", ".join(f"--{name.strip()}" for name in missing.group(1).split(","))
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
