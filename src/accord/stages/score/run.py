"""Scores or labels for any data set from any model: one row a reply, a column a number; or the replies ranked anew."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from accord.data.chat import Renderer
from accord.data.rows import reply_row, write_records
from accord.data.sources import read_comparisons, read_demonstrations, read_judgements
from accord.engine.packing import Group, reply_group
from accord.engine.texts import text_group
from accord.errors import BadInput
from accord.evaluation.statistics import finite
from accord.models.loading import load_policy
from accord.models.places import describe
from accord.models.policy import reply_logprobs
from accord.models.reference import ReplyStore, entry_names, weights_hash
from accord.models.scalar import Scorer, normalizers_of
from accord.models.tokenizer import load_renderer
from accord.records import Comparison, Demonstration, Judgement, Prompt
from accord.run import RunFolder
from accord.stages.score.config import Score
from accord.stages.shared import drop_long, load_all, open_run, refuse_idle_clock
from accord.training import distributed
from accord.training.precision import choose_precision, lowered

Record = Demonstration | Comparison | Judgement


@dataclass(frozen=True)
class Texts:
    """A record's prompt and its replies."""

    record: Record
    prompt: Prompt
    replies: tuple[str, ...]


def run(config: Score) -> RunFolder:
    """Score every reply; leaves `scores.jsonl`, of policies `reference/`, and `labels.jsonl` with --label."""
    with open_run("score", config, {f"model.{n}": p for n, p in config.models.items()}) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads)
        if config.temperature != 1 and all(describe(where)["role"] != "policy" for where in config.models.values()):
            raise BadInput("--temperature has no effect on --models of which none is a policy; leave it out")
        renderers = {n: load_renderer(where, clock=lambda: run.clock) for n, where in config.models.items()}
        refuse_idle_clock(run, renderers.values())
        texts = read_texts(config, run, list(renderers.values()))
        columns: dict[str, list[list[float]]] = {}
        precision = run.decide("precision", lambda: choose_precision(world))
        config = config.model_copy(update={"precision": precision})
        with lowered(precision, world.device):
            for name in config.models:
                columns |= score_with(config, run, name, renderers[name], texts, world.device)
        (run.path / "scores.jsonl").unlink(missing_ok=True)
        for number, one in enumerate(texts):
            for k, reply in enumerate(one.replies):
                scores = {column: finite(values[number][k]) for column, values in columns.items()}
                run.append("scores.jsonl", reply_row(one.prompt, reply, record_id=one.record.id, scores=scores))
        labelled = label(config, texts, columns) if config.label else []
        if config.label:
            write_records(run.path / "labels.jsonl", labelled)
        run.finish(records=len(texts), replies=sum(len(t.replies) for t in texts), labels=len(labelled))
        return run


def read_texts(config: Score, run: RunFolder, renderers: Sequence[Renderer]) -> list[Texts]:
    """Comparisons where the data give some, else judgements, else demonstrations."""
    problems = []
    for reader, args in (
        (read_comparisons, (config.criterion,)),
        (read_judgements, (config.criterion,)),
        (read_demonstrations, ()),
    ):
        try:
            records: list[Any] = load_all(
                reader, config.data, config, run, *args, split=config.split, renderers=renderers
            )
        except BadInput as problem:
            problems.append(str(problem))
            continue
        return [Texts(r, r.prompt, r.replies if isinstance(r, Comparison) else (r.reply,)) for r in records]
    raise BadInput(problems[-1])


def score_with(
    config: Score, run: RunFolder, name: str, renderer: Renderer, texts: Sequence[Texts], device: torch.device
) -> dict[str, list[list[float]]]:
    """Columns of one model: NAME (as stages use it) and NAME/logit of a scorer, one for each head of several and their
    spread in an ensemble; NAME/logprob and NAME/tokens of a policy. What is too long has null."""
    where = config.models[name]
    groups = [text_group(renderer, t.prompt, t.replies) for t in texts]
    fitting, kept = drop_long(groups, list(range(len(texts))), config.max_length, run, name)
    described = describe(where)
    if described["role"] == "policy":
        model = load_policy(where, trainable=False).to(device)
        single = [reply_group(group.prefix, ids) for group in fitting for ids in group.replies]
        sums = reply_logprobs(model, single, config.temperature, config.micro_tokens, device)
        if config.temperature == 1:
            keep_as_reference(run, model, config.precision, single, sums)
        flat = {f"{name}/logprob": sums, f"{name}/tokens": [float(len(group.replies[0])) for group in single]}
    else:
        flat = scorer_columns(name, where, described, fitting, config.micro_tokens, device)
    out = {}
    sizes = [len(groups[i].replies) for i in kept]
    for column, values in flat.items():
        rows: list[list[float]] = [[math.nan] * len(t.replies) for t in texts]
        for i, part in zip(kept, torch.tensor(values, dtype=torch.float64).split(sizes), strict=True):
            rows[i] = part.tolist()
        out[column] = rows
    return out


def keep_as_reference(
    run: RunFolder, model: torch.nn.Module, precision: str, groups: Sequence[Group], sums: Sequence[float]
) -> None:
    """Leave a policy's log-probs as `accord dpo --reference_cache OUT/reference` reads them."""
    names = [name for (name,) in entry_names(groups)]
    ReplyStore(run.path / "reference", weights_hash(model), precision).add(dict(zip(names, sums, strict=True)))


def scorer_columns(
    name: str, where: str, described: dict[str, Any], groups: Sequence[Any], micro_tokens: int, device: torch.device
) -> dict[str, list[float]]:
    """Flat columns of a preference or cost model, all heads and members from one forward pass of each member."""
    heads = list(normalizers_of(described))
    combined = len(heads) == 1 or "groups" in described
    scorer = Scorer(where, role=described["role"], device=device, head="" if combined else heads[0])
    table = scorer.table(groups, micro_tokens=micro_tokens)
    columns: dict[str, torch.Tensor] = {}
    if combined:
        raw = table[:, 0, 0] if scorer.is_plain else scorer.combined(table)
        columns |= {name: scorer.normalizer(raw), f"{name}/logit": raw}
    if len(heads) > 1:
        for head in heads:
            one = scorer.reading(head)
            raw = table[:, 0, heads.index(head)] if one.is_plain else one.combined(table)
            columns |= {f"{name}/{head}": one.normalizer(raw), f"{name}/{head}/logit": raw}
    if len(scorer.models) > 1 and combined:
        shifts = torch.tensor([[normalizers[h].shift for h in heads] for normalizers in scorer.members])
        columns[f"{name}/deviation"] = (table - shifts).mean(2).std(1, correction=0)
    return {column: values.tolist() for column, values in columns.items()}


def label(config: Score, texts: Sequence[Texts], columns: dict[str, list[list[float]]]) -> list[Comparison]:
    """Comparisons by the model: ranks by score, and of two replies the probability σ(difference) of that order."""
    if f"{config.label}/logit" not in columns:
        raise BadInput(f"--label {config.label}: a policy, or a model of several criteria, gives no single score")
    logits = columns[f"{config.label}/logit"]
    sign = -1.0 if describe(config.models[config.label])["role"] == "cost" else 1.0
    made = []
    for one, values in zip(texts, logits, strict=True):
        if len(one.replies) < 2 or not all(math.isfinite(v) for v in values) or not isinstance(one.record, Comparison):
            continue
        scores = [sign * v for v in values]
        ranks = tuple(1 + sum(other > score for other in scores) for score in scores)
        probability = 1.0
        if len(scores) == 2 and ranks != (1, 1):
            probability = 1 / (1 + math.exp(-abs(scores[0] - scores[1])))
        made.append(
            replace(one.record, ranks=ranks, labeler=f"model:{config.label}", strength=0.0, probability=probability)
        )
    return made
