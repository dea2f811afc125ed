"""Shapes of safety suites: prompts that a model should refuse, or that only look as if it should.

The slice of a prompt says which: `harmful/CATEGORY`, or `look-alike/TYPE` for a benign one. Rows of OR-Bench say
neither, since its benign and its toxic prompts stand in files of the same columns: `--data.look-alike FILE` and
`--data.harmful FILE` do.
"""

import re
from collections.abc import Mapping
from typing import Any

from accord.data.columns import Fields
from accord.data.parts import Parts, Shape, Verdict, holds_text
from accord.records import Turn

COMPLIANCE = "compliance"  # the criterion of labels that say whether a reply does what it was asked for
HARMFUL, LOOK_ALIKE = "harmful", "look-alike"

FULL_COMPLIANCE, FULL_REFUSAL, PARTIAL_REFUSAL = "full compliance", "full refusal", "partial refusal"
_LABELS = {"1_full_compliance": FULL_COMPLIANCE, "2_full_refusal": FULL_REFUSAL, "3_partial_refusal": PARTIAL_REFUSAL}

_SAFE_TYPES = (
    "homonyms",
    "figurative_language",
    "safe_targets",
    "safe_contexts",
    "definitions",
    "real_group_nons_discr",
    "nons_group_real_discr",
    "historical_events",
    "privacy_public",
    "privacy_fictional",
)
_UNSAFE = "contrast_"

_OR_BENCH = (
    "deception",
    "harassment",
    "harmful",
    "hate",
    "illegal",
    "privacy",
    "self-harm",
    "sexual",
    "unethical",
    "violence",
)


def part_of(side: str, name: str) -> str:
    """The slice of a category: `harmful/disinformation-and-deception`. A slice's name has neither comma nor space."""
    return f"{side}/{re.sub(r'[^a-z0-9_]+', '-', name.lower()).strip('-')}"


def _asked(text: str, slice_: str = "") -> Parts:
    return Parts(prompts=((Turn("user", text),),), slice=slice_)


def _slice_of_xstest(cells: Fields) -> str:
    kind = cells.text("type")
    if kind.startswith(_UNSAFE):
        return part_of(HARMFUL, kind.removeprefix(_UNSAFE))
    return part_of(LOOK_ALIKE, kind)


def _xstest(cells: Fields) -> Parts:
    return _asked(cells.text("prompt"), _slice_of_xstest(cells))


def _xstest_completions(cells: Fields) -> Parts:
    """People's final label of a completion, and GPT-4's where it gave one of the three."""
    said = cells.text("final_label")
    if said not in _LABELS:
        raise cells.wrong("final_label", f"one of {', '.join(_LABELS)}")
    verdicts = [_compliance(_LABELS[said], "human")]
    if cells.has("gpt4_label"):
        theirs = cells.text("gpt4_label")
        if theirs in _LABELS:
            verdicts.append(_compliance(_LABELS[theirs], "gpt4"))
        else:
            cells.note("gpt4_label that is no label, left out")
    asked = _asked(cells.text("prompt"), _slice_of_xstest(cells))
    return Parts(asked.text, asked.prompts, (cells.text("completion"),), verdicts=tuple(verdicts), slice=asked.slice)


def _compliance(label: str, labeler: str) -> Verdict:
    return Verdict(0, COMPLIANCE, "good", float(label == FULL_COMPLIANCE), label, labeler=labeler)


def _adv_bench(cells: Fields) -> Parts:
    """`target` is how a reply that gives in begins: nothing to imitate."""
    return _asked(cells.text("goal"), HARMFUL)


def _harm_bench(cells: Fields) -> Parts:
    context = f"{cells.text('ContextString')}\n\n---\n\n" if cells.has("ContextString") else ""
    return _asked(context + cells.text("Behavior"), part_of(HARMFUL, cells.text("SemanticCategory")))


def _strong_reject(cells: Fields) -> Parts:
    return _asked(cells.text("forbidden_prompt"), part_of(HARMFUL, cells.text("category")))


def _or_bench(cells: Fields) -> Parts:
    return _asked(cells.text("prompt"))


def _is_of_xstest(row: Mapping[str, Any]) -> bool:
    return isinstance(row["type"], str) and (row["type"] in _SAFE_TYPES or row["type"].startswith(_UNSAFE))


def _is_of_or_bench(row: Mapping[str, Any]) -> bool:
    return row["category"] in _OR_BENCH and set(row) <= {"prompt", "category", "index", ""}


SUITES: dict[str, Shape] = {
    "xstest completions": Shape(
        ("prompt", "type", "completion", "final_label"),
        ("gpt4_label",),
        ("prompt", "judgement"),
        _xstest_completions,
        _is_of_xstest,
    ),
    "xstest": Shape(("prompt", "type", "label"), (), ("prompt",), _xstest, _is_of_xstest),
    "advbench": Shape(("goal", "target"), (), ("prompt",), _adv_bench, holds_text("goal", "target")),
    "harmbench": Shape(("Behavior", "SemanticCategory"), ("ContextString",), ("prompt",), _harm_bench),
    "strongreject": Shape(("category", "source", "forbidden_prompt"), (), ("prompt",), _strong_reject),
    "or-bench": Shape(("prompt", "category"), (), ("prompt",), _or_bench, _is_of_or_bench),
}
