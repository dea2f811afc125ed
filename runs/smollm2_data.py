"""What `runs/smollm2.sh --road whole` measures on, apart from what it learns from: DATA_DIR PAIRS FOLDER/counts.json

FOLDER/learned/ gets the rows of every file of which stages learn, but for those of the evaluation split;
FOLDER/preference/ those of the preference split alone, for a bag of words; FOLDER/evaluation/ all of the evaluation
split, for what only reads; FOLDER/held/ some of it, for what writes replies, and rows of sets that nothing learns from.
They are spread evenly over their file, so that no category is left out; how many there are goes with PAIRS.
FOLDER/counts.json, written last, says PAIRS and how many.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from accord.data.conversations import Dropped
from accord.data.files import read_rows
from accord.data.parse import Reader, make_records
from accord.data.sources import prompt_of
from accord.disk import write_text

Rows = list[dict[str, Any]]
HELD = (40, 0.35)  # rows of each of those that replies are written to, at least, and for each of PAIRS
WRITTEN_TO = ("helpful-base", "harmless-base", "red-team")
LEARNED = {
    "helpful-base": "hh_rlhf/helpful-base.jsonl.gz",
    "helpful-online": "hh_rlhf/helpful-online.jsonl.gz",
    "helpful-rejection-sampled": "hh_rlhf/helpful-rejection-sampled.jsonl.gz",
    "harmless-base": "hh_rlhf/harmless-base.jsonl.gz",
    "red-team": "hh_red_team_prompts/question.txt.gz",
    "safety": "pku_saferlhf_pairs/dpo_5k.jsonl.gz?safe=response.0,unsafe=response.1",
}
MEASURED = {  # name: file, rows at least, and for each of PAIRS
    "xstest": ("xstest/xstest_prompts.csv.gz", 40, 0.12),
    "advbench": ("red_team/advbench_harmful_behaviors.csv.gz", 20, 0.06),
    "hhh": ("cai_evals/438HHHEvaluations.jsonl.gz", 40, 0.5),
    "truthfulqa": ("truthfulqa/TruthfulQA.csv.gz", 40, 0.2),
    "selfaware": ("selfaware/SelfAware.jsonl.gz", 40, 0.25),
    "bbq": ("bbq/bbq_sample.jsonl.gz", 120, 0.6),
    "web": ("text_misc/c4_demo.jsonl.gz", 10, 0.06),
    "piqa": ("tax_gauntlet/piqa.jsonl.gz", 40, 0.15),
    "arc-easy": ("tax_gauntlet/arc_easy.jsonl.gz", 40, 0.15),
    "lambada": ("tax_gauntlet/lambada_openai.jsonl.gz", 40, 0.15),
    "boolq": ("tax_gauntlet/boolq.jsonl.gz", 40, 0.1),
    "winogrande": ("tax_gauntlet/winogrande.jsonl.gz", 40, 0.15),
}


def spread(rows: Sequence[dict[str, Any]], count: int) -> Rows:
    """So many rows, as evenly over all of them as they go; all of them where there are no more."""
    return [rows[i * len(rows) // count] for i in range(count)] if count < len(rows) else list(rows)


def by_split(source: str) -> dict[str, Rows]:
    """The rows of a source by the split of their prompts; those that give no prompt are left out."""
    found: dict[str, Rows] = {}
    for row, _, parts in Reader().rows(source, "prompt"):
        try:
            if isinstance(parts, str):
                raise Dropped(parts)
            (record,) = make_records("prompt", parts)
        except Dropped:
            continue
        value = row.value
        if "?" in source:  # what columns a source has named stand in plain ones
            value = {"prompt": value["prompt"], **dict(zip(("safe", "unsafe"), parts.replies, strict=True))}
        found.setdefault(prompt_of(record).split, []).append(value)
    return found


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def main(data: Path, pairs: int, told: Path) -> None:
    folder = told.parent
    counts: dict[str, dict[str, int]] = {}
    for name, source in LEARNED.items():
        rows = by_split(f"{data}/{source}")
        for split in ("preference", "evaluation"):
            write(folder / split / f"{name}.jsonl", rows.get(split, []))
        write(folder / "learned" / f"{name}.jsonl", rows.get("preference", []) + rows.get("policy", []))
        counts[name] = {split: len(part) for split, part in rows.items()}
        if name in WRITTEN_TO:
            held = spread(rows.get("evaluation", []), max(HELD[0], round(HELD[1] * pairs)))
            write(folder / "held" / f"{name}.jsonl", held)
            counts[name]["held"] = len(held)
    for name, (source, least, share) in MEASURED.items():
        rows_of_set = [row.value for row in read_rows(f"{data}/{source}")]
        held = spread(rows_of_set, max(least, round(share * pairs)))
        write(folder / "held" / f"{name}.jsonl", held)
        counts[name] = {"rows": len(rows_of_set), "held": len(held)}
    write_text(told, json.dumps({"pairs": pairs, "files": counts}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
