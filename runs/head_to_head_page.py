"""The results page of `runs/head_to_head.sh`: python runs/head_to_head_page.py DATA_DIR OUT > PAGE.md"""

import csv
import gzip
import json
import math
import sys
from pathlib import Path

import krippendorff
import numpy as np
from scipy import stats
from statsmodels.stats import inter_rater

from accord.disk import read_json
from accord.evaluation.agreement import Answer, agreement, by_question, cohen_kappas, fleiss_kappa, krippendorff_alpha

BOARDS = {
    "weighted_alpaca_eval_gpt4_turbo": "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv.gz",
    "alpaca_eval_gpt4": "alpaca_eval_gpt4_leaderboard.csv.gz",
}
INTRO = """# Published votes, rated

Written by `runs/head_to_head.sh DATA_DIR` and `runs/head_to_head_page.py` from judgements that others have published:
AlpacaEval's of GPT-4 (495 of its 805 instructions, the 24 models whose outputs are at hand), PandaLM's three
annotators, POPQUORN's raters. Nothing was judged anew. Brackets are 95 % intervals over prompts.
"""
ALPACA = """## AlpacaEval

Elo and win rates are against the judge's own baseline; not every judge saw every model. "Published" are the numbers of
AlpacaEval's boards, which stand on all 805 instructions; under length control theirs is another regression
([ratings.md](../ratings.md) says in which points), so that these two may differ by more than chance. Length is in
characters.
"""
AGREEMENT = """## Agreement

Of the same answers by Accord and by a reference: Fleiss' and Cohen's κ by statsmodels, Krippendorff's α by the package
`krippendorff` from a table that was made without Accord. Fleiss' κ takes the questions with the commonest number of
answers.
"""


def interval(value: dict, digits: int = 1, scale: float = 100) -> str:
    parts = [value[key] for key in ("mean", "low", "high")]
    if parts[0] is None:
        return "–"
    shown = [f"{part * scale:.{digits}f}" if part is not None else "–" for part in parts]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def board(path: Path) -> dict[str, dict[str, str]]:
    """A board's rows by the folder of the model's outputs."""
    return {row["samples"].rpartition("/results/")[2].partition("/")[0]: row for row in rows_of(path)}


def number(text: str) -> float:
    return float(text) if text else math.nan


def rated(judge: str, found: dict, published: dict[str, dict[str, str]]) -> list[str]:
    elo, controlled = found["ratings"]["elo"], found["length_controlled"]
    rows, pairs = [], {"raw": [], "controlled": []}
    inside = 0
    for name, value in elo.items():
        mine, theirs = controlled.get(name), published.get(name, {})
        row = [name, interval(value, 0, 1)]
        for key, column in (("raw", "win_rate"), ("controlled", "length_controlled_winrate")):
            said = number(theirs.get(column, ""))
            row += [interval(mine[key]) if mine else "–", f"{said:.1f}" if math.isfinite(said) else "–"]
            if mine and math.isfinite(said):
                pairs[key].append((100 * mine[key]["mean"], said))
                inside += key == "controlled" and 100 * mine[key]["low"] <= said <= 100 * mine[key]["high"]
        rows.append([*row, f"{mine['effect']:+.2f}" if mine else "–", f"{found['lengths'][name]:.0f}"])
    head = ["model", "Elo", "win rate, %", "published", "at equal length, %", "published", "length effect", "length"]
    lines = [f"### {judge}", "", f"{found['votes']} votes; baseline {found['ratings']['anchor']}.", ""]
    lines += table(head, rows)
    said = []
    for key, words in (("raw", "win rates"), ("controlled", "rates at equal length")):
        mine, theirs = np.array(pairs[key]).T
        ranks = f"Spearman {stats.spearmanr(mine, theirs)[0]:.3f}, Kendall {stats.kendalltau(mine, theirs)[0]:.3f}"
        apart = np.abs(mine - theirs)
        said.append(f"{words}: {ranks}, mean difference {apart.mean():.1f} points, largest {apart.max():.1f}")
    n = len(pairs["controlled"])
    last = f"{inside} of {n} published rates at equal length lie in our interval."
    return [*lines, f"With the board ({n} models): {'; '.join(said)}; {last}", ""]


def popquorn(path: Path) -> list[Answer]:
    return [Answer(row["instance_id"], row["user_id"], int(float(row["offensiveness"]))) for row in rows_of(path)]


def pandalm(path: Path) -> list[Answer]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Answer(n, f"annotator {k}", int(row[f"annotator{k}"])) for n, row in enumerate(rows) for k in (1, 2, 3)]


def reference(answers: list[Answer]) -> dict[str, float]:
    """The same by others' code, from a table of questions by labelers."""
    questions, labelers, values = (sorted({getattr(a, key) for a in answers}) for key in Answer._fields)
    grid = np.full((len(questions), len(labelers)), np.nan)
    row, column = ({thing: n for n, thing in enumerate(things)} for things in (questions, labelers))
    for one in answers:
        grid[row[one.question], column[one.labeler]] = values.index(one.answer)
    counts = np.stack([(grid == k).sum(1) for k in range(len(values))], axis=1)
    size = np.bincount(counts.sum(1)[counts.sum(1) > 1]).argmax()
    found = {"Fleiss κ": inter_rater.fleiss_kappa(counts[counts.sum(1) == size])}
    for level in ("nominal", "ordinal"):
        found[f"Krippendorff α, {level}"] = krippendorff.alpha(reliability_data=grid.T, level_of_measurement=level)
    if len(labelers) < 10:
        for a in range(len(labelers)):
            for b in range(a + 1, len(labelers)):
                both = grid[~np.isnan(grid[:, [a, b]]).any(1)][:, [a, b]].astype(int)
                crossed = np.zeros((len(values), len(values)))
                np.add.at(crossed, (both[:, 0], both[:, 1]), 1)
                kappa = inter_rater.cohens_kappa(crossed, return_results=False)
                found[f"Cohen κ, {labelers[a]} and {labelers[b]}"] = kappa
    return found


def ours(answers: list[Answer]) -> dict[str, float]:
    questions = by_question(answers)
    found = {"Fleiss κ": fleiss_kappa(questions)}
    found |= {f"Krippendorff α, {level}": krippendorff_alpha(questions, level) for level in ("nominal", "ordinal")}
    return found | {f"Cohen κ, {a} and {b}": kappa for (a, b), kappa in cohen_kappas(questions).items()}


def agreed(name: str, answers: list[Answer]) -> list[str]:
    mine, theirs = ours(answers), reference(answers)
    whole = agreement(answers)
    labelers = len({answer.labeler for answer in answers})
    rows = [[key, f"{mine[key]:.6f}", f"{value:.6f}", f"{abs(mine[key] - value):.1e}"] for key, value in theirs.items()]
    said = f"{len(answers)} answers by {labelers} labelers to {whole['questions']} questions; raw agreement "
    head = ["statistic", "Accord", "reference", "difference"]
    return [f"### {name}", "", f"{said}{interval(whole['raw'], 3, 1)}.", "", *table(head, rows)]


def page(data: Path, out: Path) -> list[str]:
    alpaca, people = read_json(out / "alpaca" / "ratings.json"), read_json(out / "pandalm" / "ratings.json")
    lines = [INTRO, ALPACA]
    for judge, file in BOARDS.items():
        lines += rated(judge, alpaca["judges"][judge], board(data / "alpaca_eval" / "leaderboards" / file))
    between = alpaca["agreement"]
    kappas = "; ".join(f"{pair} {kappa:.2f}" for pair, kappa in between["cohen_kappa"].items())
    lines += [f"Where judges saw the same two replies (Cohen's κ): {kappas}.", ""]
    found = people["judges"]["annotator"]
    cycles = found["cycles"]
    lines += ["## PandaLM's annotators", "", f"{found['votes']} votes on {found['prompts']} instructions.", ""]
    lines += table(["model", "Elo"], [[name, interval(elo, 0, 1)] for name, elo in found["ratings"]["elo"].items()])
    lines += [
        f"Of {cycles['triples']} triples of replies that one person told apart {interval(cycles['seen'])} % are "
        f"cycles, where Bradley–Terry with these ratings expects {100 * cycles['expected']:.1f} %. The ratings are of "
        "models over all prompts; on one prompt the replies differ by more than that, and people seldom contradict "
        "themselves.",
        "",
        AGREEMENT,
    ]
    lines += agreed("PandaLM", pandalm(data / "pandalm_human" / "testset-v1.jsonl.gz"))
    ratings = popquorn(data / "popquorn" / "offensiveness_raw_data.csv.gz")
    return lines + agreed("POPQUORN, offensiveness from 1 to 5", ratings)


if __name__ == "__main__":
    print("\n".join(page(Path(sys.argv[1]), Path(sys.argv[2]))).rstrip())
