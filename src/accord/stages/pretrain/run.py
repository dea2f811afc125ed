"""Pretraining: next-token prediction on packed documents.

    text → tokens → max over θ of Σ_t log π_θ(x_t | x_<t)

Departures from common practice: documents never see each other (a packed row is cut into segments), so there is
no cross-document attention and no concatenate-and-chop; a batch counts tokens, not rows.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from accord.data.chat import Renderer, train_tokenizer
from accord.data.sources import read_documents, refuse_overlap
from accord.engine.texts import document_groups
from accord.errors import BadInput
from accord.models.loading import load_policy
from accord.models.places import POLICY
from accord.models.policy import SIZES, mean_loss, new_policy
from accord.models.tokenizer import embed_roles, load_renderer
from accord.records import Document
from accord.run import RunFolder
from accord.stages.pretrain.config import Pretrain
from accord.stages.shared import hold_out, load_all, named, open_run, save_snapshot, settle_language_model, text_loss
from accord.training import distributed
from accord.training.fit import fit
from accord.training.memory import longest_first
from accord.training.order import token_batches

HELD_OUT = 0.02  # of the documents, where no --eval_data is given


def run(config: Pretrain) -> RunFolder:
    """Train a language model on text; leaves a policy snapshot."""
    fresh = config.model in SIZES
    with open_run("pretrain", config, {} if fresh else {"model": config.model}) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads, shard=config.shard)
        documents: list[Document] = load_all(read_documents, config.data, config, run, weights=config.weights)
        if config.eval_data:
            held_out: list[Document] = load_all(read_documents, config.eval_data, config, run, what="eval_data")
            refuse_overlap([d.id for d in held_out], [d.id for d in documents], "--eval_data", "--data", "document")
        else:
            documents, held_out = hold_out(documents, lambda document: document.id, "", HELD_OUT)
        if not documents or not held_out:
            raise BadInput(f"too few documents to hold {100 * HELD_OUT:g} % out; give --eval_data")
        if not world.is_main:
            world.gather(None)  # the main process makes the tokenizer, the others wait and read it
        renderer = choose_renderer(config, documents)
        if world.is_main:
            world.gather(None)
        if fresh:
            model = new_policy(config.model, renderer.tokenizer, max_length=config.max_length, seed=config.seed)
        else:
            model = load_policy(config.model)
        model.to(world.device)
        groups = document_groups(renderer, documents, config.max_length)
        eval_groups = document_groups(renderer, held_out, config.max_length)
        largest = longest_first(groups, lambda group: group.tokens, config.batch_size)
        config = settle_language_model(config, run, world, model, largest)
        at = token_batches([g.tokens for g in groups], config.batch_size, config.seed)

        model = fit(
            run,
            world,
            config,
            module=model,
            steps=config.steps,
            batch_at=lambda step: [groups[i] for i in at(step)],
            size=lambda group: group.tokens,
            totals=lambda items: sum(group.trained for group in items),
            loss=text_loss(model, world, config.precision),
            evaluate=lambda: {"eval/loss": mean_loss(model, eval_groups, config.micro_tokens, world, config.precision)},
        )
        if fresh:
            embed_roles(model, renderer)
        if world.is_main:
            facts = {"data": named(config.data), "parameters": sum(p.numel() for p in model.parameters())}
            save_snapshot(run, model, renderer.tokenizer, POLICY, facts)
            run.finish(parameters=facts["parameters"])
        return run


def choose_renderer(config: Pretrain, documents: Sequence[Document]) -> Renderer:
    """The tokenizer asked for, the model's own, the one of an interrupted run, or a new one."""
    kept = Path(config.out) / "tokenizer"
    if config.tokenizer:
        return load_renderer(config.tokenizer)
    if config.model not in SIZES:
        return load_renderer(config.model)
    if not kept.is_dir():
        sources = named(config.data).values()
        tokenizer = train_tokenizer(
            _lexicon() if all(s.startswith("world:") for s in sources) else (d.text for d in documents),
            config.vocab_size,
        )
        tokenizer.save_pretrained(kept.with_name(".tokenizer.part"))
        kept.with_name(".tokenizer.part").rename(kept)
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(kept))


def _lexicon() -> Iterator[str]:
    """The gold world's vocabulary comes from its grammar, not from a sample of it."""
    from accord.world import lexicon

    yield from lexicon()
