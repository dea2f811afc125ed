"""The door: arguments in, exit code out. What a command line means is in `accord.parsing`, imported when it is needed:
`accord --help` answers at once.
"""

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from accord import __version__
from accord.commands import COMMANDS
from accord.errors import BadInput, GateClosed, Interrupted, NotFinite, WaitsForPeople, did_you_mean, is_disk_full

if TYPE_CHECKING:
    from accord.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 4 waits for people, 3 refused by a gate, 2 bad
    input, 1 failure."""
    speak_utf8()
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
    settings: Config | None = None
    try:
        if command not in COMMANDS:
            raise BadInput(f"unknown command {command!r}{did_you_mean(command, COMMANDS)}; `accord --help` lists them")
        settings = import_module("accord.parsing").parse(command, arguments[words:])
        if settings is None:
            return 0
        COMMANDS[command].run(settings)
        return 0
    except BadInput as error:
        print(f"accord {command}: {error}", file=sys.stderr)
        return 2
    except GateClosed as error:
        print(f"accord {command}: {error}", file=sys.stderr)
        return 3
    except WaitsForPeople as error:
        print(f"accord {command}: {error}", file=sys.stderr)
        return 4
    except (Interrupted, NotFinite) as error:
        print(f"accord {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"accord {command}: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        if is_disk_full(error):
            print(
                f"accord {command}: the disk is full ({error}); what was saved before is intact: make room, and "
                "--resume goes on from it",
                file=sys.stderr,
            )
            return 1
        if (explained := _explain_memory(error, settings)) is not None:
            print(f"accord {command}: {explained}", file=sys.stderr)
            return 1
        import traceback

        traceback.print_exc()
        print(
            f"accord {command}: failed (see above); --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 1


def speak_utf8() -> None:
    """Text goes in and out as UTF-8, also of processes that are started from here: help and prompts know no locale."""
    os.environ["PYTHONIOENCODING"] = "utf-8:backslashreplace"
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _explain_memory(error: Exception, settings: "Config | None") -> str | None:
    """What to say of an error that is a lack of memory, with the number to change; None of any other."""
    knob = getattr(settings, "memory_knob", "micro_tokens")
    if "torch" not in sys.modules or not hasattr(settings, knob):
        return None
    from accord.engine.decode.sampler import CACHED
    from accord.run import decided
    from accord.training.memory import is_out_of_memory, too_much

    if not is_out_of_memory(error):
        return None
    tokens = decided(settings, knob) or CACHED  # of a cache that was left to the machine, at most
    return f"{too_much(tokens, knob=knob)}; with --resume it goes on from the last checkpoint"


def overview() -> str:
    """One line per command."""
    lines = ["usage: accord COMMAND [--config FILE.yaml] [--knob value ...]", ""]
    lines += [f"  {name:<21}{command.sentence}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "accord COMMAND --help shows its everyday knobs, --help all every one."])


if __name__ == "__main__":
    sys.exit(main())
