"""The table of commands, by name alone: nothing heavy is imported until one is run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from accord.config import Config


class Command(NamedTuple):
    """What it does in one sentence, its knobs as "module:Class", what runs as "module:function", its positional knob.

    Modules are named from `accord` on.
    """

    sentence: str
    knobs: str
    function: str
    positional: str = ""

    @property
    def config(self) -> "type[Config]":
        """The class of its knobs."""
        found: type[Config] = _named(self.knobs)
        return found

    def run(self, settings: "Config") -> None:
        """Run it, in this process."""
        _named(self.function)(settings)


def _named(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f"accord.{module}"), name)


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "The whole flow on the gold world: pretrain, SFT, preference and cost model, PPO without and with a limit.",
        "stages.demo.config:Demo",
        "stages.demo.run:run",
    ),
    "pretrain": Command(
        "Train a language model on text, from nothing or on from a snapshot.",
        "stages.pretrain.config:Pretrain",
        "stages.pretrain.run:run",
    ),
    "sft": Command(
        "Supervised fine-tuning on demonstrations: loss on assistant tokens alone.",
        "stages.sft.config:Sft",
        "stages.sft.run:run",
    ),
    "preference": Command(
        "Train a preference model or a cost model on comparisons, rankings, labels and ratings.",
        "stages.preference.config:Preference",
        "stages.preference.run:run",
    ),
    "dpo": Command(
        "A policy from comparisons without a preference model: DPO and its relatives.",
        "stages.dpo.config:Dpo",
        "stages.dpo.run:run",
    ),
    "ppo": Command(
        "Proximal policy optimisation with KL to a reference; with --limits, under limits on expected cost.",
        "stages.ppo.config:Ppo",
        "stages.ppo.run:run",
    ),
    "check": Command(
        "Will this model, its template, data and server work together? A page of findings, each with its remedy.",
        "stages.check.config:Check",
        "stages.check.run:run",
        positional="model",
    ),
    "plan": Command(
        "Memory and time of every stage on a machine: what fits, how to divide it, what breaks first, how to start it.",
        "stages.plan.config:Forecast",
        "stages.plan.run:run",
        positional="model",
    ),
    "constitution": Command(
        "Principles at work: replies criticised and revised, or compared; judges measured; principles made of votes.",
        "stages.constitution.config:Constitution",
        "stages.constitution.run:run",
    ),
    "redteam": Command(
        "Attack a policy: prompts from sources or written by a model, in many forms; what gets through, and how often.",
        "stages.redteam.config:Redteam",
        "stages.redteam.run:run",
    ),
    "sample": Command(
        "Draw replies from a snapshot.",
        "stages.sample.config:Sample",
        "stages.sample.run:run",
    ),
    "probe": Command(
        "Find what a snapshot knows by samples against known answers, and write what teaches it to say so.",
        "stages.probe.config:ProbeKnowledge",
        "stages.probe.run:run",
    ),
    "probe head": Command(
        "Train a P(IK) head on what a probe has found: whether the model knows, told from the prompt alone.",
        "stages.probe.config:ProbeHead",
        "stages.probe.head:run",
    ),
    "online": Command(
        "Rounds: fresh replies compared by people or others, models, a policy, and a gate that promotes it or refuses.",
        "stages.online.config:Online",
        "stages.online.run:run",
    ),
    "score": Command(
        "Score or label any data with any model: preference, cost, ensemble, or the log-probs of a policy.",
        "stages.score.config:Score",
        "stages.score.run:run",
    ),
    "evaluate preference": Command(
        "How far to trust preference and cost models: accuracy by what may matter, calibration, errors, criteria.",
        "stages.evaluate.config:EvaluatePreference",
        "stages.evaluate.preference:run",
    ),
    "evaluate ratings": Command(
        "Snapshots head to head: win rates and Elo from votes or from scores, and how far judges agree.",
        "stages.evaluate.config:EvaluateRatings",
        "stages.evaluate.ratings:run",
    ),
    "evaluate refusals": Command(
        "Harm and over-refusal side by side, by every judge there is, with what each judge is known to get wrong.",
        "stages.evaluate.config:EvaluateRefusals",
        "stages.evaluate.refusals:run",
    ),
    "evaluate": Command(
        "Measure a snapshot: gold judges where the truth is known, preference and cost models, KL, win rate.",
        "stages.evaluate.config:Evaluate",
        "stages.evaluate.run:run",
    ),
    "evaluate honesty": Command(
        "Whether a snapshot knows what it knows and says so: calibration, P(True), declining, premises, opinions.",
        "stages.evaluate.config:EvaluateHonesty",
        "stages.evaluate.honesty:run",
    ),
    "evaluate principles": Command(
        "Test a snapshot by each principle of a constitution: which holds, at what price, and which two contradict.",
        "stages.evaluate.config:EvaluatePrinciples",
        "stages.evaluate.principles:run",
    ),
    "evaluate bias": Command(
        "Bias of policies and preference models: terms exchanged, BBQ, sentiment of replies, behaviours stated.",
        "stages.evaluate.config:EvaluateBias",
        "stages.evaluate.bias:run",
    ),
    "evaluate lm_eval": Command(
        "Tasks of lm-evaluation-harness on a snapshot, by the library itself (extra eval).",
        "stages.evaluate.config:EvaluateLmEval",
        "stages.evaluate.harness:run_lm_eval",
        positional="model",
    ),
    "evaluate inspect": Command(
        "Tasks of Inspect on a snapshot, by the library itself (extra eval).",
        "stages.evaluate.config:EvaluateInspect",
        "stages.evaluate.harness:run_inspect",
        positional="model",
    ),
    "evaluate rewards": Command(
        "Preference models and labelers on benchmarks of right and wrong replies: RewardBench, RM-Bench, LLMBar, HHH.",
        "stages.evaluate.config:EvaluateRewards",
        "stages.evaluate.rewards:run",
    ),
    "evaluate tasks": Command(
        "What a snapshot knows and can do: multiple choice, next words, short answers, loss; and what that cost.",
        "stages.evaluate.config:EvaluateTasks",
        "stages.evaluate.tasks:run",
    ),
    "frontier": Command(
        "Help against harm over values of one knob of policy optimisation: a run of PPO and an evaluation for each.",
        "stages.frontier.config:Frontier",
        "stages.frontier.run:run",
    ),
    "report": Command(
        "Put run folders into one HTML page.",
        "stages.report.config:Report",
        "stages.report.run:run",
        positional="runs",
    ),
    "claims": Command(
        "Run experiments on claims of the literature and write their verdicts.",
        "claims.config:Claims",
        "claims.runner:run",
        positional="names",
    ),
    "chat": Command(
        "Talk to a snapshot in the terminal.",
        "stages.chat.config:Chat",
        "stages.chat.run:run",
        positional="snapshot",
    ),
    "export": Command(
        "Write a snapshot as others load it: adapters merged, stops and template set, in the precision that is asked.",
        "stages.export.config:Export",
        "stages.export.run:run",
        positional="snapshot",
    ),
    "serve": Command(
        "Answer over HTTP: chat as OpenAI's clients ask for it, or the scores of a preference or cost model.",
        "stages.serve.config:Serve",
        "stages.serve.run:run",
        positional="snapshot",
    ),
    "collect": Command(
        "Serve the page on which people compare, write and judge replies; with --snapshots on fresh ones.",
        "stages.collect.config:Collect",
        "stages.collect.run:run",
    ),
    "collect export": Command(
        "Write what people said to a file, in a shape that other tools and Accord itself read.",
        "stages.collect.config:CollectExport",
        "stages.collect.transfer:export",
    ),
    "collect import": Command(
        "Put questions on the desk: prompts and replies of a source, for people to answer.",
        "stages.collect.config:CollectImport",
        "stages.collect.transfer:take_in",
    ),
    "collect quality": Command(
        "Say how good the labels are: agreement, and of everybody bias, time, check items; with --out as JSON too.",
        "stages.collect.config:CollectQuality",
        "stages.collect.appraisal:run",
    ),
    "collect backup": Command(
        "Copy a SQLite store while it is in use; the copy is whole and one state of it.",
        "stages.collect.config:CollectBackup",
        "stages.collect.transfer:backup",
    ),
    "data": Command(
        "Show what a source holds: shape, rows, drops, lengths, an example with its mask; keep what is of use.",
        "stages.data.config:Data",
        "stages.data.run:run",
        positional="source",
    ),
}
