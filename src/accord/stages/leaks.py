"""What a model and its ancestors have learned from, by the ids of prompts: what is measured on these says nothing."""

from collections.abc import Iterable
from pathlib import Path

from accord.data.sources import prompt_of, refuse_overlap
from accord.errors import BadInput
from accord.models.places import describe
from accord.records import Comparison, Demonstration, Document, Judgement, Prompt, is_part_of
from accord.run import RunFolder

LEARNING = ("sft", "preference", "dpo", "ppo")  # stages whose data a model learns from
MEASURING = ("eval_data",)  # of their sources, those that it does not
HELD_OUT = "held-out"  # the slice of prompts that nothing may learn from: held-out/FAMILY of `accord redteam`
TRAINED_PROMPTS = "trained_prompts.txt"
LABELLED_PROMPTS = "labelled_prompts.txt"


def known_prompts(snapshot: str, *, labelled: bool = False) -> set[str]:
    """The ids of the prompts that a snapshot or an ancestor of it learned from; of a model elsewhere none are known.

    `labelled`: of a scorer, those alone whose replies it has labels of.
    """
    for name in (LABELLED_PROMPTS, TRAINED_PROMPTS) if labelled else (TRAINED_PROMPTS,):
        if (listed := Path(snapshot) / name).is_file():
            return set(listed.read_text(encoding="utf-8").split())
    return set()


def refuse_held_out(
    records: Iterable[Prompt | Demonstration | Comparison | Judgement | Document], stage: str, what: str
) -> None:
    """Refuse what is held out (the slice `held-out`, which records carry along) where a stage would learn from it."""
    if stage not in LEARNING or what in MEASURING:
        return
    prompts = (prompt_of(record) for record in records if not isinstance(record, Document))
    count = sum(is_part_of(prompt.slice, HELD_OUT) for prompt in prompts)
    if count:
        raise BadInput(
            f"--{what}: {count} records are of the slice {HELD_OUT}, which measures what nothing has learned from; "
            "leave them out, or name another slice in their rows if you mean it"
        )


def remember_prompts(
    run: RunFolder, folder: Path, records: Iterable[Prompt | Demonstration | Comparison | Judgement]
) -> None:
    """Write the ids of the prompts a model was trained on into its snapshot, with those of all its ancestors."""
    ids = {prompt_of(record).id for record in records}.union(*map(known_prompts, run.parents.values()))
    write_ids(folder / TRAINED_PROMPTS, ids)


def remember_labelled(run: RunFolder, folder: Path, prompts: Iterable[Prompt], start: str) -> None:
    """The same of a scorer, and beside it the prompts that it has labels of: `start` knows some if it was a scorer.

    The prompts that its trunk alone learned from are no leak where it scores other replies to them.
    """
    prompts = list(prompts)
    remember_prompts(run, folder, prompts)
    before = set() if describe(start)["role"] == "policy" else known_prompts(start, labelled=True)
    write_ids(folder / LABELLED_PROMPTS, {prompt.id for prompt in prompts} | before)


def write_ids(path: Path, ids: Iterable[str]) -> None:
    """One id a line, sorted; no file for none."""
    if lines := "".join(f"{i}\n" for i in sorted(ids)):
        path.write_text(lines, encoding="utf-8")


def refuse_trained_prompts(
    prompts: Iterable[Prompt], snapshots: Iterable[str], what: str, *, labelled: bool = False
) -> None:
    """Refuse prompts that a snapshot or an ancestor of it was trained on, or that a scorer has labels of (`labelled`).

    What is measured on them says nothing.
    """
    ids = {prompt.id for prompt in prompts}
    for snapshot in snapshots:
        known = known_prompts(snapshot, labelled=labelled)
        refuse_overlap(ids, known, what, f"the training data of {snapshot} (use --split)")
