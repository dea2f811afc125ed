"""AlpacaEval's judgements with their texts, as its annotations have them: python runs/alpaca_votes.py DIR OUT

Only judgements between two of the models whose outputs are there.
"""

import csv
import gzip
import json
import sys
from pathlib import Path


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main(folder: Path, out: Path) -> None:
    asked = {row["instruction_id"]: row["instruction"] for row in lines(folder / "instructions.jsonl.gz")}
    outputs, called = {}, {}
    for path in sorted((folder / "outputs").glob("*.jsonl.gz")):
        rows, name = lines(path), path.name.removesuffix(".jsonl.gz")
        outputs[name] = {row["instruction_id"]: row["output"] for row in rows}
        called[rows[0]["generator"]] = name  # NullModel's judgements call it "example"
    kept = left_out = 0
    with (
        gzip.open(folder / "judgements_slim.csv.gz", "rt", newline="", encoding="utf-8") as judged,
        gzip.open(out, "wt", encoding="utf-8") as written,
    ):
        for row in csv.DictReader(judged):
            number, sides = int(row["instruction_id"]), [called.get(row[f"generator_{k}"], "") for k in (1, 2)]
            texts = [outputs.get(side, {}).get(number) for side in sides]
            if None in texts:
                left_out += 1
                continue
            kept += 1
            vote = {"instruction": asked[number], "output_1": texts[0], "output_2": texts[1]}
            vote |= {"generator_1": sides[0], "generator_2": sides[1], "annotator": row["judge"]}
            written.write(json.dumps(vote | {"preference": float(row["preference"])}) + "\n")
    print(f"{kept} judgements between two of {len(outputs)} models; {left_out} about other models left out")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
