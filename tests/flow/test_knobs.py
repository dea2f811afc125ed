"""No knob is taken in silence: beside the others of a run each one is read, or was refused where it is off its default.

A choice is a command with some knobs set, and the knobs that have no effect beside them. Which these are is said here
by hand, and compared with what configs refuse; a run of two steps in which every read of a knob is noted shows that it
is true.
"""

import json
import random
import re
from typing import Literal, NamedTuple, get_args, get_origin

import pytest
from pydantic import ValidationError

from accord.commands import COMMANDS
from accord.config import Config, idle_rows
from accord.disk import read_lines
from accord.errors import BadInput
from accord.parsing import parse

ADAPTERS = "lora_alpha lora_targets base_bits "
CRITICS = "critic value_clip value_weight critic_learning_rate critic_warmup lam whiten "
MULTIPLIERS = "multiplier_rule multiplier_rate multiplier_gain multiplier_init multiplier_bound limit_window "
LIMITS = MULTIPLIERS + "limit_of multipliers_from eval_data "
PTX = "ptx_kind ptx_weight ptx_batch_size "
STILL = "kl_horizon refresh_mix "  # of a reference that does not move and a β that does not adapt
IN_STEP = "off_policy_steps "  # of replies that this process draws
PLAIN = ADAPTERS + LIMITS + PTX + STILL + IN_STEP + "labeling "
GROUPED = {"samples": 2}
MEMBERS = "combine variance_weight group_weights "
NO_PAIRS = (
    "weights ranking ties label_smoothing strength_margin reliability lm_weight centring_weight binarise flips folds "
)
# of an ordinary preference model on comparisons
PAIRS = ADAPTERS + MEMBERS + "criterion_weights severity_weight suspects suspect_below "
MARGINS = "strength_margin margin_weights safety_margin "
MOVES = "refresh_mix "
REFERENCE = "reference refresh_every cache_reference reference_cache "
MEASURES_NOTHING = {"kl_prompts": None, "max_new_tokens": None}
TRAINED = "learning_rate matrix_learning_rate warmup schedule weight_decay clip_norm batch_size eval_every "


SERVER = "allow_local key_variable max_calls max_cost price_sent price_answered timeout attempts at_once draws "
UNGATED = (
    "limits preference limit_slices judge judge_prompts eval_prompts detect spending checks costs eval_data "
    "judge_scorer judges group database overlap enough wait "
)
REVISED = "critic revisions critique helpful "
JUDGED = "judge criterion ensemble clamp think "
UNMEASURED = "mapping tries "  # without a calibration, and where nothing is steered
COMPARED = JUDGED + "question replies samples labels calibration require_calibration checks " + UNMEASURED
VOTED = "from_votes statements keep "
COMPARES = {"make": "comparisons", "revisions": None}


class Choice(NamedTuple):
    """A line of the commands' fixture, what it changes (FILES and SNAPSHOTS stand for folders), what it refuses."""

    line: str
    changes: dict
    refused: str


def ppo(changes, refused):
    return Choice("ppo", changes, refused)


def limited(changes, refused):
    return Choice("limited", changes, ADAPTERS + PTX + STILL + IN_STEP + "labeling value_weight " + refused)


def preference(changes, refused):
    return Choice("preference", changes, "label_flips " + refused)


def dpo(changes, refused):
    limited = any(knob.startswith("limits.") for knob in changes)
    return Choice("dpo", changes, ADAPTERS + ("" if limited else "limit_of ") + refused)


CHOICES = {
    "ppo": ppo({}, PLAIN + "value_weight"),
    "ppo, shared critics": ppo({"critic": "shared"}, PLAIN + "critic_learning_rate"),
    "ppo, rloo": ppo({"advantages": "rloo", **GROUPED}, PLAIN + CRITICS + "gamma"),
    "ppo, grpo": ppo({"advantages": "grpo", **GROUPED}, PLAIN + CRITICS + "gamma"),
    "ppo, dr-grpo": ppo({"advantages": "dr-grpo", **GROUPED}, PLAIN + CRITICS + "gamma"),
    "ppo, reinforce++": ppo({"advantages": "reinforce++"}, PLAIN + CRITICS),
    "ppo, KL in the loss": ppo({"kl_in": "loss", "kl_estimator": "k3"}, PLAIN + "value_weight"),
    "ppo, exact KL": ppo({"kl_in": "loss", "kl_estimator": "exact"}, PLAIN + "value_weight"),
    "ppo, no KL": ppo({"kl_coefficient": 0}, PLAIN + "value_weight kl_target kl_anneal"),
    "ppo, one update": ppo({"ppo_epochs": 1, "mini_batch_size": 8}, PLAIN + "value_weight update_kl"),
    "ppo, adapters": ppo({"lora_rank": 2}, LIMITS + PTX + STILL + IN_STEP + "labeling value_weight"),
    "ppo, labeler": ppo(
        {"rewards.kind": "labeler:SNAPSHOTS/policy", "labeling.question": "yes-no"},
        ADAPTERS + LIMITS + PTX + STILL + IN_STEP + "value_weight",
    ),
    "ppo, limit": limited({}, ""),
    "ppo, limit by rloo": Choice(
        "limited", {"advantages": "rloo", **GROUPED}, ADAPTERS + PTX + STILL + IN_STEP + CRITICS + "labeling gamma"
    ),
    "ppo, limit checked": limited({"eval_data.harmful": "FILES/held-out-harmful.jsonl"}, ""),
    "ppo, limit by safe-rlhf": limited({"multiplier_rule": "safe-rlhf"}, "multiplier_gain"),
    "ppo, fixed multiplier": limited({"multiplier_rule": "fixed"}, "multiplier_gain multiplier_rate multiplier_bound"),
    "ppo, multiplier of another run": limited({"multipliers_from": "FILES/limited"}, "multiplier_init"),
    "ppo, all that can be added": ppo(
        {"kl_target": 1.0, "refresh_every": 1, "ptx_data": "FILES/documents.jsonl", "weight_average": 0.5}
        | {"watch.other": "SNAPSHOTS/reward", "alarms.objective/kl": "roll-back above 1000"}
        | {"reward_weights.helpful": 2.0, "scale_rewards": "true", "lora_rank": 2},
        LIMITS + IN_STEP + "labeling value_weight",
    ),
    "preference": preference({}, PAIRS),
    "preference, labels too": preference(
        {"unpaired_data.rated": "FILES/ratings.jsonl", "unpaired_data.labelled": "FILES/labels.jsonl"},
        ADAPTERS + MEMBERS + "criterion_weights suspects suspect_below",
    ),
    "preference, labels alone": preference(
        {"data": None, "unpaired_data": "FILES/labels.jsonl"},
        ADAPTERS + MEMBERS + NO_PAIRS + "criterion_weights suspects suspect_below",
    ),
    "preference, cost": Choice(
        "cost", {"safety_data": "FILES/safety.jsonl"}, ADAPTERS + MEMBERS + "criterion_weights suspects suspect_below"
    ),
    "preference, davidson": preference({"ties": "davidson"}, PAIRS + "strength_margin"),
    "preference, plackett-luce": preference({"ranking": "plackett-luce"}, PAIRS + "label_smoothing strength_margin"),
    "preference, reliability": preference({"reliability": "true"}, PAIRS),
    "preference, binarised": preference({"binarise": "true"}, PAIRS + "label_weight"),
    "preference, two criteria": preference(
        {"criterion": "helpful,honest"}, ADAPTERS + MEMBERS + "severity_weight suspects suspect_below weights"
    ),
    "preference, groups": preference(
        {"by_group": "true"}, ADAPTERS + "criterion_weights severity_weight suspects suspect_below variance_weight"
    ),
    "preference, worst of groups": preference(
        {"by_group": "true", "combine": "worst"},
        ADAPTERS + "criterion_weights severity_weight suspects suspect_below variance_weight group_weights",
    ),
    "preference, ensemble": preference(
        {"ensemble": 2, "combine": "variance"},
        ADAPTERS + "criterion_weights severity_weight suspects suspect_below group_weights",
    ),
    "preference, mean weights of groups": preference(
        {"ensemble": 2, "combine": "weights", "by_group": "true"},
        ADAPTERS + "criterion_weights severity_weight suspects suspect_below variance_weight",
    ),
    "preference, folds": preference(
        {"folds": 2}, ADAPTERS + MEMBERS + "criterion_weights severity_weight suspect_below"
    ),
    "preference, suspects": preference(
        {"folds": 2, "suspects": "soften"}, ADAPTERS + MEMBERS + "criterion_weights severity_weight"
    ),
    "preference, adapters": preference(
        {"lora_rank": 2}, MEMBERS + "criterion_weights severity_weight suspects suspect_below"
    ),
    "dpo": dpo({}, MOVES + "safety_margin"),
    "dpo, ipo": dpo({"loss": "ipo"}, MOVES + MARGINS),
    "dpo, safe replies without a margin": dpo({"loss": "ipo", "safety_data": "FILES/judged.jsonl"}, MOVES + MARGINS),
    "dpo, kto": dpo({"loss": "kto"}, MOVES + MARGINS),
    "dpo, labels alone": dpo(
        {"loss": "bco", "data": None, "unpaired_data": "FILES/labels.jsonl"} | MEASURES_NOTHING,
        MOVES + MARGINS + "weights limits kl_prompts max_new_tokens eval_every",
    ),
    "dpo, labels, and comparisons to measure on": dpo(
        {"loss": "kto", "data": None, "unpaired_data": "FILES/labels.jsonl"}
        | {"eval_data": "FILES/held-out.jsonl", "eval_share": None},
        MOVES + MARGINS + "weights eval_share",
    ),
    "dpo, aot": dpo({"loss": "aot"}, MOVES + MARGINS),
    "dpo, rankings": dpo({"loss": "plackett_luce"}, MOVES + MARGINS),
    "dpo, no reference": dpo({"loss": "simpo"}, MOVES + REFERENCE + "safety_margin"),
    "dpo, reference that moves": dpo({"refresh_every": 1}, "safety_margin cache_reference reference_cache"),
    "dpo, reference anew": dpo({"cache_reference": "false"}, MOVES + "safety_margin reference_cache"),
    "dpo, other comparisons to measure on": dpo(
        {"eval_data": "FILES/held-out.jsonl", "eval_share": None}, MOVES + "safety_margin eval_share"
    ),
    "dpo, no replies": dpo({"kl_prompts": 0, "max_new_tokens": None}, MOVES + "safety_margin limits max_new_tokens"),
    "dpo, more than one objective": dpo(
        {"safety_data": "FILES/judged.jsonl", "costs.harm": "SNAPSHOTS/cost", "limits.harm": 0.0}
        | {"rewards.other": "SNAPSHOTS/reward", "margin_weights.other": 0.5},
        MOVES,
    ),
    "dpo, adapters": Choice("dpo", {"lora_rank": 2}, MOVES + "limit_of safety_margin"),
    "sft": Choice("sft", {}, ADAPTERS),
    "sft, adapters": Choice("sft", {"lora_rank": 2}, ""),
    "pretrain": Choice("pretrain", {}, ""),
    "pretrain, a tokenizer": Choice("pretrain", {"tokenizer": "SNAPSHOTS/policy", "vocab_size": None}, "vocab_size"),
    "pretrain, a snapshot": Choice("pretrain", {"model": "SNAPSHOTS/policy", "vocab_size": None}, "vocab_size"),
    "pretrain, nothing trained": Choice("pretrain", {"steps": 0, "learning_rate": None, "batch_size": None}, TRAINED),
    "sample": Choice("sample", {}, "rewards beta micro_tokens"),
    "sample, best": Choice("sample", {"select": "best", "rewards.r": "SNAPSHOTS/reward", "samples": 2}, "beta"),
    "sample, accepted": Choice("sample", {"select": "accepted", "rewards.r": "SNAPSHOTS/reward", "samples": 2}, ""),
    "evaluate": Choice("evaluate", {}, "judge"),
    "evaluate, against": Choice("evaluate", {"against": "FILES/evaluated"}, ""),
    "evaluate preference": Choice("evaluate preference", {}, ""),
    "evaluate preference, distances": Choice(
        "evaluate preference",
        {f"{what}_data": "FILES/demonstrations.jsonl" for what in ("familiar", "background", "strange")},
        "",
    ),
    "evaluate honesty": Choice("evaluate honesty", {}, ""),
    "evaluate tasks": Choice("evaluate tasks", {"max_new_tokens": 4}, "examples"),
    "evaluate tasks, examples": Choice("evaluate tasks", {"shots": 1, "examples.a": "FILES/questions.jsonl"}, ""),
    "evaluate bias": Choice("evaluate bias", {"model": "SNAPSHOTS/policy"}, "max_new_tokens"),
    "evaluate bias, sentiment": Choice(
        "evaluate bias", {"model": "SNAPSHOTS/policy", "sentiment": "SNAPSHOTS/reward", "max_new_tokens": 4}, ""
    ),
    "evaluate bias, preference models alone": Choice(
        "evaluate bias",
        {"models.a": "SNAPSHOTS/reward"},
        "sentiment against precision max_length max_new_tokens",
    ),
    "probe": Choice("probe", {"questions.a": "FILES/knowable.jsonl", "samples": 2, "max_new_tokens": 4}, ""),
    "probe head": Choice("probe head", {"data": "FILES/labels.jsonl", "batch_size": 16}, ADAPTERS),
    "score": Choice("score", {}, ""),
    "score, policies too": Choice("score", {"models.p": "SNAPSHOTS/policy", "label": "a"}, ""),
    "constitution": Choice("constitution", {"helpful": "FILES/harmful.jsonl"}, SERVER + COMPARED + VOTED),
    "constitution, without critiques": Choice("constitution", {"critique": "false"}, SERVER + COMPARED + VOTED),
    "constitution, compared": Choice(
        "constitution", {**COMPARES}, SERVER + REVISED + VOTED + "question clamp " + UNMEASURED
    ),
    "constitution, compared after thought": Choice(
        "constitution", {**COMPARES, "think": 4}, SERVER + REVISED + VOTED + "question " + UNMEASURED
    ),
    "constitution, given replies": Choice(
        "constitution",
        {**COMPARES, "replies": "FILES/drawn", "judge": "SNAPSHOTS/policy", "model": None, "data": None}
        | {"max_new_tokens": None},
        SERVER
        + REVISED
        + VOTED
        + UNMEASURED
        + "question clamp model data split samples temperature max_new_tokens max_rows columns",
    ),
    "constitution, calibration": Choice(
        "constitution",
        {"make": "calibration", "data": "FILES/comparisons.jsonl", "max_new_tokens": None, "revisions": None},
        SERVER + REVISED + VOTED + UNMEASURED + "clamp replies samples labels calibration require_calibration checks "
        "temperature max_new_tokens",
    ),
    "constitution, calibration of single replies": Choice(
        "constitution",
        {"make": "calibration", "question": "score", "data": "FILES/comparisons.jsonl"}
        | dict.fromkeys(["max_new_tokens", "revisions", "shots"]),
        SERVER
        + REVISED
        + VOTED
        + UNMEASURED
        + "shots think clamp replies samples labels calibration require_calibration "
        "checks temperature max_new_tokens",
    ),
    "constitution, steering": Choice(
        "constitution",
        {"make": "steering", "tries": 2, "data": "FILES/comparisons.jsonl", "criterion": "helpful"}
        | dict.fromkeys(["max_new_tokens", "revisions"]),
        SERVER
        + REVISED
        + VOTED
        + "mapping ensemble think clamp replies samples labels calibration require_calibration "
        "checks temperature max_new_tokens",
    ),
    "constitution, votes": Choice(
        "constitution",
        {"make": "principles", "from_votes": "FILES/votes.csv", "statements": "FILES/statements.csv", "keep": 1}
        | dict.fromkeys(["model", "data", "max_new_tokens", "shots", "revisions", "threads"]),
        SERVER + REVISED + COMPARED + "model data split constitution tags shots temperature max_new_tokens "
        "max_rows columns cache_tokens seed threads",
    ),
    "online": Choice("online", {"rounds": 1}, SERVER + UNGATED),
    "online, no replies at the end": Choice("online", {"rounds": 1, "train.kl_prompts": 0}, SERVER + UNGATED),
}

# two steps, or two of what a command counts
SMALL = {
    "ppo": {"steps": 2, "batch_size": 4, "mini_batch_size": 4, "max_rows": 8},
    "limited": {"steps": 2, "batch_size": 4, "mini_batch_size": 4, "max_rows": 8},
    "preference": {"data": "FILES/said.jsonl", "eval_share": 0.2},
    "cost": {"data": "FILES/said.jsonl", "eval_share": 0.2},
    "dpo": {"max_rows": 50, "eval_share": 0.2},
    "sft": {"epochs": 1.0},
    "pretrain": {"steps": 2},
    "sample": {"max_rows": 4},
    "evaluate": {"max_rows": 4},
}


@pytest.fixture(scope="session")
def material(commands):
    """What the choices read beside the shared files: comparisons of two groups with ties and both-bad, labels, runs."""
    root, generator = commands.files, random.Random(3)
    words = [f"{a} {b}" for a in ("cat", "dog", "stone") for b in ("runs", "sees", "red", "blue")]

    def write(name, rows):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def replies(i):
        return {"prompt": f"why {i}", "chosen": f"the {generator.choice(words)}", "rejected": f"a {words[i % 12]} salt"}

    kinds = [{}, {"margin": 2}, {"tie": True}, {"tie": True, "all_bad": True}, {}]
    write("said.jsonl", [{**replies(i), **kinds[i % 5], "labeler": f"group{i % 2}:{i % 4}"} for i in range(70)])
    write("knowable.jsonl", [{"question": f"why {i}", "label": "unknown"} for i in range(6)])
    write("exchanged.jsonl", [{"first": f"the cat {word}", "second": f"the dog {word}"} for word in ("runs", "sees")])
    write("questions.jsonl", [{"context": f"why {i}", "answer": words[i]} for i in range(6)])
    write("held-out.jsonl", [replies(i) for i in range(100, 110)])
    write("held-out-harmful.jsonl", [{"prompt": f"the stone river {word} runs"} for word in ("red", "blue", "big")])
    single = [{"prompt": f"how {i}", "completion": f"the {words[i % 12]}"} for i in range(40)]
    write("labels.jsonl", [{**row, "label": i % 2 == 0} for i, row in enumerate(single)])
    write("ratings.jsonl", [{**row, "rating": i % 5} for i, row in enumerate(single)])
    write("safety.jsonl", [{**row, "is_safe": i % 2 == 0, "severity": i % 3} for i, row in enumerate(single)])
    pairs = [json.loads(line) for line in (root / "comparisons.jsonl").read_text().splitlines()]
    write(
        "judged.jsonl",
        [
            {"prompt": pair["prompt"], "completion": pair[side], "is_safe": side == "chosen"}
            for pair in pairs
            for side in ("chosen", "rejected")
        ],
    )
    (root / "limited").mkdir(exist_ok=True)
    (root / "limited" / "lineage.json").write_text('{"multiplier_integrals": {"harm": 1.0}}')
    prompts = [json.loads(line) for line in (root / "prompts.jsonl").read_text().splitlines()]
    from accord.data.rows import reply_row
    from accord.records import Prompt, Turn

    (root / "evaluated").mkdir(exist_ok=True)
    turns = [Prompt((Turn("user", row["prompt"]),), "", "") for row in prompts]
    (root / "drawn").mkdir(exist_ok=True)
    write("drawn/samples.jsonl", [reply_row(p, text) for p in turns[:3] for text in ("the cat", "a stone")])
    (root / "statements.csv").write_text("comment-id,comment-body\n0,Be kind.\n1,Be short.\n")
    (root / "votes.csv").write_text("participant,group-id,0,1\n1,a,1,-1\n2,b,1,1\n")
    write("evaluated/samples.jsonl", [reply_row(p, "the cat", scores={"reward/helpful": 0.5}) for p in turns])
    return root


@pytest.fixture
def configured(commands, material):
    """`configured(name, out)` is the config of a choice."""

    def parsed(name, out):
        choice = CHOICES[name]
        changes = {**SMALL.get(choice.line, {}), **choice.changes}
        given = {
            knob: str(value).replace("FILES", str(material)).replace("SNAPSHOTS", str(commands.snapshots))
            for knob, value in changes.items()
            if value is not None
        }
        given |= dict.fromkeys(knob for knob, value in changes.items() if value is None)
        if choice.line in ("evaluate tasks", "evaluate honesty"):
            asked, kind = ("questions", "tasks") if choice.line == "evaluate tasks" else ("knowable", "probes")
            line = {"threads": 1, "model": commands.snapshots / "policy", f"{kind}.a": material / f"{asked}.jsonl"}
            line |= {"out": out, **given}
            return choice.line, parse(choice.line, [f"--{knob}={value}" for knob, value in line.items()])
        if choice.line in ("evaluate bias", "probe", "probe head"):
            line = {"sets.a": material / "exchanged.jsonl"} if choice.line == "evaluate bias" else {}
            line |= {"model": commands.snapshots / "policy"} if choice.line != "evaluate bias" else {}
            line |= {"threads": 1, "out": out, **given}
            return choice.line, parse(choice.line, [f"--{knob}={value}" for knob, value in line.items()])
        if choice.line in ("evaluate preference", "score"):
            line = {"threads": 1, "max_length": 64, "data": material / "comparisons.jsonl", "out": out}
            line |= {"models.a": commands.snapshots / "reward", **given}
            return choice.line, parse(choice.line, [f"--{knob}={value}" for knob, value in line.items()])
        command, *flags = commands.line(choice.line, out, **given)
        return command, parse(command, flags)

    return parsed


def off_default(cls, knob):
    """A value that the knob can have, other than its default."""
    field = cls.model_fields[knob]
    kind = field.annotation
    if knob in OTHERS:
        candidates = OTHERS[knob]
    elif kind is bool:
        candidates = [not field.default]
    elif get_origin(kind) is Literal:
        candidates = [value for value in get_args(kind) if value != field.default]
    elif isinstance(field.default, int | float):
        candidates = [field.default * 2, field.default / 2, field.default + 1, 0.25, 0.75, 2]
    elif "float" in str(kind):
        candidates = [{"some": 0.5}]
    else:
        candidates = ["some", {"some": "some"}, ["some"]]
    return next(value for value in candidates if value != field.default and fits(cls, knob, value))


OTHERS = {"limit_of": ["unsafe"], "engine": ["http://localhost:1"], "loss": ["ipo"], "clock": ["2024-07-26T12:00:00"]}


def fits(cls, knob, value):
    try:
        cls(**{"model": "m", "data": "d", "out": "o", knob: value})
    except ValidationError as error:
        return not any(problem["loc"][:1] == (knob,) for problem in error.errors())
    return True


def refusal(config, knob):
    """What is said of the config with this knob off its default, if it has no effect there."""
    try:
        type(config)(**{**config.model_dump(), knob: off_default(type(config), knob)})
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        return message if f"--{knob} has no effect" in message else ""
    return ""


@pytest.mark.parametrize("name", CHOICES)
def test_what_has_no_effect_is_refused_with_both_names_and_nothing_else_is(name, configured):
    _, config = configured(name, "unused")
    knobs = [knob for knob, field in type(config).model_fields.items() if not field.is_required()]
    refused = {knob: said for knob in knobs if (said := refusal(config, knob))}
    assert set(refused) == set(CHOICES[name].refused.split())
    for knob, said in refused.items():
        reason = re.fullmatch(rf"Value error, --{knob} has no effect (with.*); change that, or leave it out", said)
        other = re.search(r"--(\w+)", reason[1])
        assert other and other[1] != knob and other[1] in type(config).model_fields, said


# `data` leaves no run folder to read knobs from; tests/flow/test_published_data.py sees these refused
REFUSED_ELSEWHERE = {
    "Data": {"ngram", "overlap"},
    # tests/feedback/test_collect.py and test_transfer.py see these refused
    "Collect": {
        *["criterion", "data", "mode", "samples", "overlap", "temperature", "max_new_tokens", "cache_tokens", "seed"]
    }
    | {"max_rows", "columns", "picks", "harmful", "pause_minutes", "check_least", "check_right"},
    "CollectExport": {"criterion", "decisions"},
    "CollectImport": {"criterion", "known", "random_share", "scores", "overlap"},
    # tests/flow/test_off_policy.py sees it refused
    "Ppo": {"sampler_gap"},
    "EvaluateRatings": {"criterion", "split", "ties_within", "scores", "labelers", *SERVER.split()},
    "EvaluateRefusals": {"scores", "truth", *SERVER.split()},
    # tests/flow/test_rewards_road.py sees these refused
    "EvaluateRewards": {"criterion", "question", *SERVER.split()},
    # tests/flow/test_principles_road.py sees these refused
    "EvaluatePrinciples": {"question", "calibration", "require_calibration", "shots", *SERVER.split()},
    # tests/flow/test_redteam.py sees these refused
    "Redteam": {"writer", "shown", "alike", "attacks", "families", "held_out", "question", "constitution", "tags"}
    | {"ensemble", "calibration", "require_calibration", *SERVER.split()},
    # tests/plan/test_plan.py sees these refused
    "Forecast": {"prompt_tokens", "rows", "columns", "max_rows", "samples", "ppo_epochs", "cost_models", "critic"}
    | {"iterations", "base_bits"},
}


def test_every_refusal_belongs_to_a_choice():
    for cls in {COMMANDS[name].config for name in COMMANDS}:
        named = {knob for row in idle_rows(cls) for knob in row.knobs.split()}
        assert named <= set(cls.model_fields)
        listed = {
            knob
            for choice in CHOICES.values()
            if COMMANDS[{"cost": "preference", "limited": "ppo"}.get(choice.line, choice.line)].config is cls
            for knob in choice.refused.split()
        }
        assert named == listed | REFUSED_ELSEWHERE.get(cls.__name__, set()), cls


def test_a_knob_at_its_default_is_taken_and_the_first_reason_is_said(configured):
    _, config = configured("ppo, rloo", "unused")
    plain = config.model_dump()
    assert type(config)(**{**plain, "value_clip": 0.0, "lam": 0.95, "critic": "separate"}) == config
    # and not that the critic, which is not there, is a separate one
    assert "with --advantages rloo (there is no critic)" in refusal(config, "value_weight")


def test_the_sizes_that_the_knobs_know_are_those_of_the_models():
    from accord.models.policy import SIZES
    from accord.stages.pretrain.config import NEW

    assert set(SIZES) == set(NEW)


# What runs read


class Reads:
    """Which knobs of a class were read since; neither validators nor what writes a whole config count as readers."""

    def __init__(self, monkeypatch):
        self.found = {}
        plain = object.__getattribute__

        def noted(config, name):
            cls = type(config)
            if name in cls.model_fields:
                self.found.setdefault(cls, set()).add(name)
            return plain(config, name)

        monkeypatch.setattr(Config, "__getattribute__", noted)

    def of(self, command, config):
        """What a run of this command reads of its config."""
        self.found.clear()
        COMMANDS[command].run(config)
        return self.found[type(config)]


QUICK = ["ppo, rloo", "preference", "dpo", "sft", "pretrain", "sample", "evaluate", "evaluate tasks"]
QUICK += ["evaluate honesty", "evaluate bias", "probe", "score", "online"]
QUICK += ["constitution", "constitution, votes"]
# refused for more than that nothing would come of them: the policy would wait for critics, folds would be empty, this
# process would draw beside its own update, and no matrix under adapters would be there to hold in 4 bits
HARMFUL = {"critic_warmup", "folds", "off_policy_steps", "base_bits"}


def check_reads(name, configured, tmp_path, monkeypatch):
    command, config = configured(name, str(tmp_path / "run"))
    cls, refused = type(config), set(CHOICES[name].refused.split())
    reads = Reads(monkeypatch)
    # one is about a folder that is there already, the other about steps, of which there may be none
    unread = set(cls.model_fields) - reads.of(command, config) - {"resume", "checkpoint_every"}
    given = {knob for knob, field in cls.model_fields.items() if vars(config)[knob] != field.default}
    assert not unread & given, "given and not read"
    for knob in sorted(unread - refused):
        values = {**vars(config), knob: off_default(cls, knob), "out": str(tmp_path / knob)}
        try:
            assert knob in reads.of(command, cls(**values)), f"--{knob} is off its default and nothing reads it"
        except (BadInput, ValidationError) as error:
            assert len({other for other in re.findall(r"--(\w+)", str(error)) if other in cls.model_fields}) > 1
    # what is refused would change nothing
    numbers = {knob for knob in refused if isinstance(cls.model_fields[knob].default, bool | int | float)}
    changes = {knob: off_default(cls, knob) for knob in numbers - HARMFUL}
    if changes:
        COMMANDS[command].run(config.model_copy(update={**changes, "out": str(tmp_path / "other")}))
        assert outcome(tmp_path / "run") == outcome(tmp_path / "other")


def outcome(folder):
    """Everything that a run found, without the clock."""
    files = [*folder.glob("snapshot/**/*.safetensors"), folder / "samples.jsonl", folder / "evaluation.json"]
    found = {str(file.relative_to(folder)): file.read_bytes() for file in files if file.exists()}
    rows = read_lines(folder / "metrics.jsonl")
    return found, [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows]


@pytest.mark.parametrize("name", QUICK)
def test_every_knob_is_read_or_refused(name, configured, tmp_path, monkeypatch):
    check_reads(name, configured, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHOICES if name not in QUICK])
def test_every_knob_is_read_or_refused_in_every_choice(name, configured, tmp_path, monkeypatch):
    check_reads(name, configured, tmp_path, monkeypatch)
