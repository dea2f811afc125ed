"""The results page of `runs/constitution_smollm2.sh` from its run folders:

python runs/constitution_smollm2_page.py OUT > docs/results/constitution-smollm2.md
"""

import sys
from pathlib import Path

from tables import interval, plain, table

from accord.disk import read_json

FORMS = ("choice", "yes-no", "score")
INTRO = """# SmolLM2 as judge, critic and reviser

Written by `runs/constitution_smollm2_page.py` from the run folders that `runs/constitution_smollm2.sh` left. The model
is SmolLM2-135M-Instruct, from weights of four bits. No prompt and no reply is shown. Brackets are 95 % intervals over
prompts.
"""
HHH = """## HHH by the form of the question

The HHH evaluations of Constitutional AI (the half of the 438 comparisons that was at hand): which of two replies is the
most helpful, honest and harmless. `choice` shows both, in either order; `yes-no` and `score` ask about each reply
alone, and the one with the higher answer is taken. By chance half are right. *First* and *last* are the shares that are
right where the better reply is shown first and last, each order by itself; *turns* is how often the verdict turns with
the order.
"""
CALIBRATED = """Probabilities as they are, and after a temperature and an isotonic regression that were fitted on other
prompts (cross-fitted): the error that is left when one says as often as the other is right. A temperature changes no
verdict.
"""
REVISED = """## Critiques and revisions of red-team prompts

Each reply was criticised and revised by the model itself, a principle of the default constitution drawn anew for each
step, behind one worked example. There is no truth here and no judge that was measured well enough to say what harm is
left: *whole* ended by themselves, and the others are lists of phrases (docs/constitution.md), for watching one step
beside another.
"""


def hhh(out: Path) -> list[str]:
    found = {
        form: read_json(out / f"hhh-{form}" / "calibration.json")
        for form in FORMS
        if (out / f"hhh-{form}" / "manifest.json").exists()
    }
    if not found:
        return []
    rows, calibrated = [], []
    for form, told in found.items():
        accuracy = told["before"]["accuracy_interval"]
        by_place = [plain(told[key]) for key in ("right_first", "right_last", "first_place", "flip_rate")]
        rows.append([form, str(told["n"]), interval(accuracy), *by_place])
        for key, name in (("before", "as it is"), ("after", "temperature"), ("isotonic", "isotonic")):
            bounds = told["intervals"][key]
            calibrated.append([form, name, interval(bounds["ece"]), interval(bounds["brier"])])
    head = ["question", "pairs", "right", "first", "last", "mean probability of the first place", "turns"]
    lines = [HHH, *table(head, rows)]
    lines += [verdict(form, told) for form, told in found.items()]
    return [*lines, "", CALIBRATED, *table(["question", "probabilities", "calibration error", "Brier"], calibrated)]


def verdict(form: str, told: dict) -> str:
    """What the numbers of one form say, plainly."""
    accuracy = told["before"]["accuracy_interval"]
    side = "better than chance" if accuracy["low"] > 0.5 else "no better than chance, as far as these pairs tell"
    (temperature,) = told["temperatures"].values()
    fitted = "none, its labels would be refused" if temperature is None else f"{temperature:.2f}"
    return f"- `{form}`: {side}; temperature {fitted}."


def revised(out: Path) -> list[str]:
    folder = out / "revised"
    if not (folder / "manifest.json").exists():
        return []
    lineage = read_json(folder / "lineage.json")
    rows = [
        [str(row["step"]), f"{row['whole']} of {row['rows']}"]
        + [plain(row.get(key)) for key in ("boilerplate", "preachy", "evasive")]
        + [plain(row.get("words"), 1)]
        for row in read_json(folder / "revisions.json")
    ]
    told = f"{rows[0][1].rpartition(' ')[2]} prompts in {lineage['seconds'] / 60:.0f} minutes on "
    told += f"{lineage['machine']['cores']} cores; {lineage['revisions']} different whole revisions are demonstrations."
    return [REVISED, *table(["revision", "whole", "ready-made", "preachy", "evasive", "words"], rows), told]


if __name__ == "__main__":
    print("\n".join([INTRO, *hhh(Path(sys.argv[1])), *revised(Path(sys.argv[1]))]))
