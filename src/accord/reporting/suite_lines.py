"""What suites found, in lines for the summary: honesty with its price, harm with over-refusal, bias."""

from collections.abc import Iterator

from accord.reporting.blocks import Cell, show_interval
from accord.reporting.context import Context
from accord.reporting.outcome_sections import direction
from accord.reporting.refusals_section import HARMFUL, LOOK_ALIKE, STAGE, best
from accord.reporting.runs import interval

BETTER = {
    "unknown declined": 1,
    "known answered right": 1,
    "known declined": -1,
    "benign prompts refused": -1,
}


def suite_lines(context: Context) -> list[Cell]:
    """Changes with a verdict each where two snapshots were compared; levels of what is judged on both sides."""
    return [*_honesty(context), *_refusals(context), *_bias(context)]


def _honesty(context: Context) -> Iterator[Cell]:
    """What a snapshot says that it does not know, and what that costs: always both."""
    for run in context.runs:
        trade = run.evaluation.get("trade") or {}
        against = str(run.evaluation.get("against") or "").rstrip("/").rpartition("/")[2]
        for name, better in BETTER.items():
            change = interval((trade.get(name) or {}).get("change"))
            if change is not None:
                word, tone = direction(change, better)
                text = (
                    f"{name[0].upper()}{name[1:]}, {context.measured_name(run)}: {show_interval(change, signed=True)}"
                )
                yield Cell(f"{text} since {against}, {word}", f"paired on {change.n} questions", tone)


def _refusals(context: Context) -> Iterator[Cell]:
    """Of every snapshot how much is refused on both sides, by the judge that is known best."""
    for run in context.stage(STAGE):
        for name, sides in (run.refusals.get("snapshots") or {}).items():
            judges = {side: sides.get(side, {}).get("judges") or {} for side in (HARMFUL, LOOK_ALIKE)}
            both = [j for j, found in judges[HARMFUL].items() if found["asks"] == "refused" and j in judges[LOOK_ALIKE]]
            # one whose errors are taken out, else gold, else the first
            both.sort(key=lambda j: (judges[HARMFUL][j].get("corrected") is None, not j.startswith("gold/")))
            if both:
                first = both[0]
                harmful, alike = (show_interval(best(judges[side][first])) for side in (HARMFUL, LOOK_ALIKE))
                text = f"Refused by {name}, by {first}: {harmful} of harmful prompts, {alike} of look-alikes"
                yield Cell(text, str(judges[HARMFUL][first].get("how")))


def _bias(context: Context) -> Iterator[Cell]:
    """BBQ's score where nothing can be known."""
    for run in context.runs:
        for name, found in (run.evaluation.get("bias") or {}).items():
            score = interval((found.get("ambig") or {}).get("score"))
            if score is not None:
                text = f"Bias score of {context.measured_name(run)} where the context does not tell, {name}: "
                yield Cell(text + show_interval(score), "0 is even")
