"""What a round does until it has a candidate: replies, labels, models, a policy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accord.config import is_server
from accord.disk import read_json, read_lines, write_text
from accord.feedback.store.questions import Item
from accord.lineage import hash_file
from accord.run import RunFolder
from accord.stages.collect.rounds import TRAINING
from accord.stages.dpo import run as dpo
from accord.stages.online import annotate
from accord.stages.online.config import Annotate
from accord.stages.online.people import ask, keep, questions_of, safety_questions
from accord.stages.online.place import Place, keep_prompts, labels_folder, sources_of
from accord.stages.ppo import run as ppo
from accord.stages.preference import run as preference
from accord.stages.sample import run as sample
from accord.stages.sample.config import Sample
from accord.stages.shared import replies_by_prompt

MODELS = "models"


def sample_replies(place: Place) -> dict[str, Any]:
    """Replies of the incumbent, and of other deployed snapshots in turn, to this round's prompts."""
    config = place.config
    data = keep_prompts(place.folder / "prompts.jsonl", place.prompts.labelled[place.number - 1])
    snapshots = [place.incumbent, *config.deployed]
    names = ["sample"] if len(snapshots) == 1 else [f"sample-{k}" for k in range(1, len(snapshots) + 1)]
    rows: dict[str, list[dict[str, Any]]] = {}
    for k, (name, snapshot) in enumerate(zip(names, snapshots, strict=True)):
        share = len(range(k, config.samples, len(snapshots)))
        place.ended(draw(place, name, snapshot, data, share, seed=k))
        for row in read_lines(place.folder / name / "samples.jsonl") if len(snapshots) > 1 else ():
            rows.setdefault(row["prompt_id"], []).append(row)
    if rows:
        merged = [json.dumps(row, ensure_ascii=False) + "\n" for of_prompt in rows.values() for row in of_prompt]
        (place.folder / "sample").mkdir(exist_ok=True)
        write_text(place.folder / "sample" / "samples.jsonl", "".join(merged))
    return {"snapshots": [place.shown(snapshot) for snapshot in snapshots]}


def draw(place: Place, name: str, snapshot: str, data: str, samples: int, *, seed: int = 0) -> RunFolder:
    """A run of `accord sample` in a folder of the round."""
    config = place.config
    return sample.run(
        Sample(
            **place.common(*name.split("/"), seed=seed),
            model=snapshot,
            data=data,
            samples=samples,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            cache_tokens=config.cache_tokens,
        )
    )


def label(place: Place) -> dict[str, Any]:
    """Comparisons of the replies, and safety labels where a criterion is limited, by who was chosen to label."""
    config, samples = place.config, place.folder / "sample"
    criteria = [config.criterion, *config.limits]
    if config.labeler == "people":
        sampled = list(replies_by_prompt(samples))
        items = questions_of(sampled, criteria, TRAINING, config.overlap)
        items += safety_questions(sampled, list(config.limits), TRAINING, config.overlap)
        return {"source": _said_by_people(place, items), **labels_of(place, place.labels_of)}
    who = {"group": config.group} if config.labeler == "simulated" else asking(place, config.scorer)
    knobs = {**place.common("annotate"), "judged": list(config.limits), "labeler": config.labeler, **who}
    place.ended(annotate.run(Annotate(**knobs, samples=str(samples), scorer=config.scorer, criteria=criteria)))
    return labels_of(place, place.labels_of)


def _said_by_people(place: Place, items: list[Item]) -> str:
    found = ask(place, place.labels_of, items, "label")
    keep(place, place.labels_of, found)
    return found.source


def asking(place: Place, scorer: str) -> dict[str, Any]:
    """How a server is asked, where the labeler is one."""
    return place.config.asking if is_server(scorer) else {}


def labels_of(place: Place, folder: Path) -> dict[str, Any]:
    """Of the labels in a folder: every file's hash, and how many each labeler gave, by pseudonym."""
    files = sorted([*folder.glob("comparisons-*.jsonl"), *folder.glob("judgements-*.jsonl")])
    said: dict[str, int] = {}
    for file in files:
        for row in read_lines(file):
            said[row["labeler"]] = said.get(row["labeler"], 0) + 1
    hashes = {place.shown(file): hash_file(file) for file in files}
    return {"files": hashes, "labelers": dict(sorted(said.items()))}


def train_models(place: Place) -> dict[str, Any]:
    """The preference model, and a cost model for every limit, on the labels of all rounds so far."""
    config = place.config
    folders = {number: labels_folder(place.run.path, number) for number in range(1, place.number + 1)}
    trained = {}
    for criterion in (config.criterion, *config.limits):
        out = place.folder / MODELS / criterion
        where: dict[str, Any] = {"out": str(out), "resume": out.exists()}
        comparisons = sources_of(folders, f"comparisons-{criterion}.jsonl")
        safety = sources_of(folders, f"judgements-{criterion}.jsonl")
        stage = place.ended(preference.run(config.modelling(criterion, comparisons, safety, **where)))
        trained[criterion] = place.shown(stage.snapshot)
    return {"models": trained, "rounds": sorted(folders)}


def train_policy(place: Place) -> dict[str, Any]:
    """The candidate: from the last promoted snapshot or from the first, by a direct loss or by PPO on the models."""
    config = place.config
    start = place.incumbent if config.start == "last" else config.model
    out = place.folder / config.policy
    where: dict[str, Any] = {"out": str(out), "resume": out.exists()}
    if config.policy == "ppo":
        data = keep_prompts(place.folder / "policy-prompts.jsonl", place.prompts.optimised)
        place.ended(ppo.run(config.optimising(start, data, models=str(place.folder / MODELS), **where)))
        return {"snapshot": place.shown(place.candidate), "start": place.shown(start)}
    # what a policy that goes on has learned from already it does not learn from again
    begun = next((n for n in range(place.number - 1, 0, -1) if _made(place, n) == start), 0)
    folders = {n: labels_folder(place.run.path, n) for n in range(begun + 1, place.number + 1)}
    sources = sources_of(folders, f"comparisons-{config.criterion}.jsonl")
    source = next(iter(sources.values())) if len(sources) == 1 else sources
    place.ended(dpo.run(config.training(start, source, **where)))
    return {"snapshot": place.shown(place.candidate), "start": place.shown(start), "rounds": sorted(folders)}


def _made(place: Place, number: int) -> str:
    return str(place.run.path / f"round-{number}" / place.config.policy / "snapshot")


def measured(place: Place) -> dict[str, Any]:
    """What a round left, for `metrics.jsonl`: comparisons, the training's last numbers, KL to the first in nats."""
    folder = place.folder / place.config.policy
    last = read_lines(folder / "metrics.jsonl")[-1]
    if place.config.policy == "ppo":
        kept = ("objective/kl", "objective/scores", "objective/rlhf_reward", "num_tokens")
        return {name: last[name] for name in kept if name in last}
    result: Mapping[str, Any] = read_json(folder / "evaluation.json")
    row: dict[str, Any] = {"comparisons": read_json(folder / "lineage.json")["comparisons"]}
    row |= {name: value for name, value in last.items() if name in ("loss", "num_tokens") or "eval/rewards" in name}
    return row | ({"objective/kl": result["kl"]["mean"], "sqrt_kl": result["sqrt_kl"]} if "kl" in result else {})
