"""The table of commands, and exit codes. What a command line means is in `accord.parsing`, imported when it is needed:
`accord --help` answers at once.
"""

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from accord import __version__
from accord.errors import BadInput, Interrupted

if TYPE_CHECKING:
    from accord.config import Config


class Command(NamedTuple):
    """What it does in one sentence, its knobs' class in `accord.config`, "module:function", its positional knob."""

    sentence: str
    knobs: str
    function: str
    positional: str = ""

    @property
    def config(self) -> "type[Config]":
        found: type[Config] = getattr(import_module("accord.config"), self.knobs)
        return found

    def run(self, settings: "Config") -> None:
        module, function = self.function.split(":")
        getattr(import_module(module), function)(settings)


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "The whole flow on the gold world: pretrain, SFT, preference and cost model, PPO without and with a limit.",
        "Demo",
        "accord.stages.demo.run:run",
    ),
    "pretrain": Command(
        "Train a language model on text, from nothing or on from a snapshot.",
        "Pretrain",
        "accord.stages.pretrain.run:run",
    ),
    "sft": Command(
        "Supervised fine-tuning on demonstrations: loss on assistant tokens alone.",
        "Sft",
        "accord.stages.sft.run:run",
    ),
    "preference": Command(
        "Train a preference model or a cost model on comparisons, rankings, labels and ratings.",
        "Preference",
        "accord.stages.preference.run:run",
    ),
    "dpo": Command(
        "A policy from comparisons without a preference model: DPO and its relatives.",
        "Dpo",
        "accord.stages.dpo.run:run",
    ),
    "ppo": Command(
        "Proximal policy optimisation with KL to a reference; with --limits, under limits on expected cost.",
        "Ppo",
        "accord.stages.ppo.run:run",
    ),
    "sample": Command(
        "Draw replies from a snapshot.",
        "Sample",
        "accord.stages.sample.run:run",
    ),
    "online": Command(
        "Rounds on a policy's own replies: sample, have them compared, train by a direct loss.",
        "Online",
        "accord.stages.online.run:run",
    ),
    "score": Command(
        "Score or label any data with any model: preference, cost, ensemble, or the log-probs of a policy.",
        "Score",
        "accord.stages.score.run:run",
    ),
    "evaluate preference": Command(
        "How far to trust preference and cost models: accuracy by what may matter, calibration, errors, criteria.",
        "EvaluatePreference",
        "accord.stages.evaluate.preference:run",
    ),
    "evaluate": Command(
        "Measure a snapshot: gold judges where the truth is known, preference and cost models, KL, win rate.",
        "Evaluate",
        "accord.stages.evaluate.run:run",
    ),
    "report": Command(
        "Put run folders into one HTML page.",
        "Report",
        "accord.stages.report.run:run",
        "runs",
    ),
    "claims": Command(
        "Run experiments on claims of the literature and write their verdicts.",
        "Claims",
        "accord.claims.runner:run",
        "names",
    ),
    "chat": Command(
        "Talk to a snapshot in the terminal.",
        "Chat",
        "accord.stages.chat.run:run",
        "snapshot",
    ),
    "data": Command(
        "Show what a source holds: shape, rows, drops, lengths, an example with its mask.",
        "Data",
        "accord.stages.data.run:run",
        "source",
    ),
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
        import traceback

        traceback.print_exc()
        print(
            f"accord {command}: failed (see above); --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 1


def _explain_memory(error: Exception, settings: "Config | None") -> str | None:
    """What to say of an error that is a lack of memory, with the number to change; None of any other."""
    if "torch" not in sys.modules or not hasattr(settings, "micro_tokens"):
        return None
    from accord.run import decided
    from accord.training.memory import is_out_of_memory, too_much

    if not is_out_of_memory(error):
        return None
    return f"{too_much(decided(settings, 'micro_tokens'))}; with --resume it goes on from the last checkpoint"


def overview() -> str:
    """One line per command."""
    lines = ["usage: accord COMMAND [--config FILE.yaml] [--knob value ...]", ""]
    lines += [f"  {name:<21}{command.sentence}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "accord COMMAND --help shows its knobs."])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """(did you mean …?), where one of the known words is near."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


if __name__ == "__main__":
    sys.exit(main())
