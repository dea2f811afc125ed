"""The table of commands, by name alone: nothing heavy is imported until one is run."""

from importlib import import_module
from typing import NamedTuple

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
