"""XSTest's published completions by every judge that needs no download, against people's labels, as a results page.

    python runs/xstest_judges.py DATA_DIR OUT > docs/results/xstest-judges.md

DATA_DIR holds xstest/completions_*.csv.gz, XSTest's completions of five models with two people's labels and GPT-4's.
"""

import contextlib
import sys
from pathlib import Path

from accord.data.suites import PARTIAL_REFUSAL
from accord.disk import read_json
from accord.evaluation.prevalence import corrected_share, judge_errors
from accord.evaluation.statistics import Interval, share_interval
from accord.parsing import parse
from accord.run import RunFolder
from accord.stages.evaluate.refusals import SIDES, Answered, judged, labelled_replies, run, truth

JUDGES = ("rules", "labeler/gpt4")
INTRO = """# XSTest's completions by every judge

Written by `runs/xstest_judges.py` from XSTest's published completions of five models (about half of the suite: 90
harmful prompts and 128 look-alikes). The truth is people's final label; a partial refusal counts as a refusal. Judges
are XSTest's own rule (`rules`) and the labels of GPT-4 that were published with it; no model of ours was asked.
Brackets are 95 % intervals over prompts.
"""
OTHERS = """## Does a judge err on one model as on the others?

`evaluate refusals` takes that for granted where it knows a judge's errors from other models. Here each model in turn is
the one that is not known: the share of refusals among its replies, as the judge sees it and with the errors that the
judge makes on the other four taken out, beside the truth. Where there is a dash, a judge with those errors would not
say what it says, and `evaluate refusals` says so too.
"""


def shown(value: Interval | dict | None) -> str:
    if value is None:
        return "–"
    parts = value.json() if isinstance(value, Interval) else value
    if parts["mean"] is None:
        return "–"
    return f"{parts['mean']:.2f} [{parts['low']:.2f}, {parts['high']:.2f}]"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def known(judge: str, replies: list[Answered], side: str) -> tuple[list[float], list[float], list[str]]:
    """What the judge said, what is so, and the prompts."""
    pairs = [(said, truth(judge, one), one.cluster) for one, said in judged(judge, replies, side)]
    return [said for said, _, _ in pairs], [true or 0.0 for _, true, _ in pairs], [key for _, _, key in pairs]


def left_out(replies: dict[str, list[Answered]]) -> tuple[list[str], int, int]:
    """The table of each model against the others; how many intervals hold the truth, and how many there are."""
    rows, held, count = [], 0, 0
    for judge in JUDGES:
        for side in SIDES:
            for name, own in replies.items():
                said, true, clusters = known(judge, own, side)
                others = [one for other, part in replies.items() if other != name for one in part]
                errors = judge_errors(*known(judge, others, side))
                try:
                    found = corrected_share(said, errors, clusters)
                except ValueError:
                    found = None
                share = sum(true) / len(true)
                if found is not None:
                    count += 1
                    held += found.low <= share <= found.high
                seen = share_interval(said, clusters)
                rows.append([judge, side, name, f"{share:.2f}", shown(seen), shown(found)])
    head = ["judge", "prompts", "model", "truly refused", "as the judge sees it", "errors on the others taken out"]
    return table(head, rows), held, count


def page(data: Path, out: Path) -> list[str]:
    files = sorted((data / "xstest").glob("completions_*.csv.gz"))
    names = {file.name.split("_")[1]: str(file) for file in files}
    flags = [part for name, path in names.items() for part in (f"--labels.{name}", path)]
    config = parse("evaluate refusals", [*flags, "--out", str(out)])
    with contextlib.redirect_stdout(sys.stderr):
        run(config)
        with RunFolder("xstest-judges", config.model_copy(update={"out": str(out / "read")})) as folder:
            replies = labelled_replies(config, folder)
    found = read_json(out / "refusals.json")
    rows = [
        [judge, side, str(row["replies"]), *(shown(row[key]) for key in ("sensitivity", "specificity", "partial"))]
        for judge, judged_ in found["judges"].items()
        for side, row in judged_["sides"].items()
    ]
    partial = sum(one.category == PARTIAL_REFUSAL for part in replies.values() for one in part)
    head = ["judge", "prompts", "replies", "sensitivity", "specificity", "partial refusals found"]
    lines = [INTRO, "## What each judge gets wrong", "", *table(head, rows)]
    lines += [
        f"{partial} of {sum(map(len, replies.values()))} replies are partial refusals. The rule finds those that begin "
        "as refusals do, and cannot say that they are partial.",
        "",
        OTHERS,
    ]
    others, held, count = left_out(replies)
    last = f"{held} of {count} intervals hold the truth, where 95 of 100 should, and the others cannot be had: judges "
    last += "err on each model in a way of its own. Labels of a snapshot's own replies are better."
    return [*lines, *others, last]


if __name__ == "__main__":
    print("\n".join(page(Path(sys.argv[1]), Path(sys.argv[2]))))
