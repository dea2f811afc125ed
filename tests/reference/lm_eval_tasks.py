"""Questions asked here and by lm-evaluation-harness of the same model over the same files, compared one by one.

    python tests/reference/lm_eval_tasks.py MODEL DATA ROWS [TASK ...]

DATA holds tax_gauntlet/, mmlu/, blimp/ and gsm8k/; a TASK is one of `PUBLISHED`, all of them if none is named.

Needs `pip install 'lm-eval[hf]'`.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from accord.cli import main
from accord.data.files import read_rows
from accord.data.tasks import read_questions
from accord.disk import read_lines

LETTERS = ["A", "B", "C", "D"]
CHOICE = {"output_type": "multiple_choice", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
SUBJECT = "The following are multiple choice questions (with answers) about {{subject.replace('_', ' ')}}.\n\n"
# shape of a file: what lm-eval's YAML says of it
YAML: dict[str, dict[str, Any]] = {
    "choices": {**CHOICE, "doc_to_text": "{{query}}", "doc_to_target": "{{gold}}", "doc_to_choice": "{{choices}}"},
    "schema": {
        **CHOICE,
        "doc_to_text": "{{gold}}",
        "doc_to_target": "continuation",
        "doc_to_choice": "context_options",
    },
    "next": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{' ' + continuation.lstrip()}}",  # to what follows lm-eval adds no blank by itself
        "metric_list": [{"metric": "acc"}],
    },
    "pair": {
        **CHOICE,
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "target_delimiter": "",
    },
    "subject": {
        **CHOICE,
        "doc_to_text": SUBJECT + "{{question.strip()}}\nA. {{A}}\nB. {{B}}\nC. {{C}}\nD. {{D}}\nAnswer:",
        "doc_to_choice": LETTERS,
        "doc_to_target": "{{['A', 'B', 'C', 'D'].index(answer)}}",
    },
    "worked": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer.split('### ')[-1].rstrip()}}",
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 64},
        "filter_list": [
            {
                "name": "flexible-extract",
                "filter": [
                    {"function": "regex", "group_select": -1, "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "regexes_to_ignore": [",", r"\$", r"\.$"]}],
    },
}
NAMES = {"acc": "task/accuracy", "acc_norm": "task/accuracy_norm", "exact_match": "task/accuracy"}
PUBLISHED = {
    "piqa": ("choices", "tax_gauntlet/piqa.jsonl.gz"),
    "winogrande": ("schema", "tax_gauntlet/winogrande.jsonl.gz"),
    "lambada": ("next", "tax_gauntlet/lambada_openai.jsonl.gz"),
    "blimp": ("pair", "blimp/blimp_sample.jsonl.gz"),
    "mmlu": ("subject", "mmlu/test_sample.csv.gz"),
    "gsm8k": ("worked", "gsm8k/test.jsonl.gz"),
}


class Agreement(NamedTuple):
    """Of a metric of one task how many questions both counted, how many alike, and the share that was right here."""

    task: str
    metric: str
    questions: int
    alike: int
    right: float


def compare(model: str, files: dict[str, tuple[str, str]], folder: Path) -> list[Agreement]:
    """Ask every file (task: shape and path, JSON lines) here and there."""
    asked = [word for task, (_, path) in files.items() for word in (f"--tasks.{task}", path)]
    line = ["evaluate", "tasks", "--model", model, *asked, "--out", str(folder / "ours")]
    if any(shape == "worked" for shape, _ in files.values()):
        line += ["--max_new_tokens", "64"]
    if main(line) != 0:
        raise SystemExit("accord evaluate tasks failed")
    rows = read_lines(folder / "ours" / "samples.jsonl")
    found = []
    for task, (shape, path) in files.items():
        ours = {row["prompt_id"]: row["scores"] for row in rows if row["slice"] == task}
        ids = [question.id for question in read_questions(path, columns={}).questions]
        theirs = harness(model, task, shape, path)
        assert len(ids) == len(theirs), (task, len(ids), len(theirs))
        for metric in [name for name in NAMES if name in theirs[0]]:
            both = [
                (ours[i][NAMES[metric]], float(sample[metric]))
                for i, sample in zip(ids, theirs, strict=True)
                if NAMES[metric] in ours[i]
            ]
            alike = sum(a == b for a, b in both)
            found.append(Agreement(task, metric, len(both), alike, sum(a for a, _ in both) / max(len(both), 1)))
    return found


def harness(model: str, task: str, shape: str, path: str) -> list[dict[str, Any]]:
    """lm-eval's own scores of every row of a file, in its order."""
    import lm_eval

    config = {
        "task": f"accord_{task}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": path}},
        "test_split": "test",
        "num_fewshot": 0,
        **YAML[shape],
    }
    done = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": model, "dtype": "float32"},
        tasks=[config],
        device="cpu",
        batch_size=8,
        log_samples=True,
        bootstrap_iters=0,
    )
    return sorted(done["samples"][config["task"]], key=lambda sample: sample["doc_id"])


def cut(path: Path, rows: int, out: Path) -> Path:
    """So many rows of a published file, evenly, as JSON lines."""
    values = [row.value for row in read_rows(str(path))]
    chosen = values[:: max(1, len(values) // rows)][:rows]
    out.write_text("".join(json.dumps(value) + "\n" for value in chosen), encoding="utf-8")
    return out


if __name__ == "__main__":
    model, data, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    chosen = sys.argv[4:] or list(PUBLISHED)
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        files = {
            task: (PUBLISHED[task][0], str(cut(data / PUBLISHED[task][1], count, folder / f"{task}.jsonl")))
            for task in chosen
        }
        for one in compare(model, files, folder):
            print(f"{one.task} {one.metric}: {one.alike} of {one.questions} alike, {one.right:.3f} right here")
