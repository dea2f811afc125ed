"""What preference-model pretraining learns from: python runs/hh_pmp_data.py DATA_DIR OUT

Pairs of Auto-J (people), TL;DR (a judge) and AlpacaEval (a judge) as one file OUT/pmp.jsonl, without any whose opening
stands in the HH-RLHF files that are tested afterwards. AlpacaEval's judgements lie apart from the outputs that they are
about; they are put together here, the first so many of every instruction by the hash of what they compare.
"""

import json
import sys
from pathlib import Path

from accord.data.files import read_rows
from accord.data.sources import read_comparisons, write_records
from accord.disk import write_text
from accord.records import Comparison, unit_hash

JUDGE = "alpaca_eval_gpt4"
PER_INSTRUCTION = 3
CRITERION = "helpful"


def alpaca_pairs(folder: Path) -> list[dict]:
    """AlpacaEval's annotations in its own columns: instruction, output_1, output_2, preference."""
    asked = {
        int(row.value["instruction_id"]): row.value["instruction"]
        for row in read_rows(str(folder / "instructions.jsonl.gz"))
    }
    outputs = {
        (Path(row.file).name.partition(".jsonl")[0], int(row.value["instruction_id"])): row.value["output"]
        for row in read_rows(str(folder / "outputs"))
    }
    judged: dict[int, list[tuple[str, str, float]]] = {}
    for row in read_rows(str(folder / "judgements_slim.csv.gz")):
        said, number = row.value, int(row.value["instruction_id"])
        sides = said["generator_1"], said["generator_2"]
        if said["judge"] == JUDGE and all((side, number) in outputs for side in sides):
            judged.setdefault(number, []).append((*sides, float(said["preference"])))
    pairs = []
    for number, rows in sorted(judged.items()):
        rows.sort(key=lambda row: unit_hash(f"{number} {row[0]} {row[1]}"))
        for first, second, preference in rows[:PER_INSTRUCTION]:
            sides = {"output_1": outputs[first, number], "output_2": outputs[second, number]}
            pairs.append({"instruction": asked[number], **sides, "preference": preference})
    return pairs


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    joined = out / "alpaca_eval.jsonl"
    pairs = alpaca_pairs(data / "alpaca_eval")
    write_text(joined, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
    tested = read_comparisons(str(data / "hh_rlhf"), CRITERION).records
    openings = {comparison.prompt.opening for comparison in tested}
    kept: list[Comparison] = []
    report = []
    for source in (data / "autoj_pairwise", data / "tldr_judged", joined):
        loaded = read_comparisons(str(source), CRITERION)
        apart = [comparison for comparison in loaded.records if comparison.prompt.opening not in openings]
        drops = {**loaded.drops, "opening is tested on": len(loaded.records) - len(apart)}
        report.append({"source": source.name, "rows": loaded.rows, "drops": drops, "used": len(apart)})
        kept += apart
    write_records(str(out / "pmp.jsonl"), kept)
    write_text(out / "pmp.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
