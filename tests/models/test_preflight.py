"""What does not fit together is said before the first step, by every stage: exit 2, one line, nothing left behind."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
)

from accord.data.chat import train_tokenizer
from accord.engine.packing import reply_group
from accord.errors import BadInput
from accord.models.loading import add_adapters, load_policy, load_scalar
from accord.models.preflight import generation_findings, model_findings, preflight, reference_findings
from accord.models.scalar import Scorer, new_scalar
from accord.stages.sft.config import Sft

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def saved(model, tokenizer, folder):
    torch.manual_seed(0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama(tokenizer, folder, kind=LlamaForCausalLM, **changes):
    known = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    return saved(kind(LlamaConfig(**{**SMALL, **known, "intermediate_size": 32, **changes})), tokenizer, folder)


@pytest.fixture
def refused(commands, tmp_path, capsys):
    """`refused(command, **changes)`: what a command says in one line that ends it before anything was done."""

    def run(name, **changes):
        capsys.readouterr()
        assert commands.run(name, tmp_path / "refused", **changes) == 2
        assert not (tmp_path / "refused").exists()
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        return said

    return run


ROLES = {"ppo": "rewards.helpful", "sample": "rewards.r", "evaluate": "costs.harmless", "preference": "model"}


@pytest.mark.parametrize("name", ROLES)
def test_a_scorer_of_several_labels_is_refused_wherever_it_scores(name, refused, tokenizer, tmp_path):
    named = {0: "worse", 1: "equal", 2: "better"}
    where = llama(tokenizer, tmp_path / "three", LlamaForSequenceClassification, num_labels=3, id2label=named)
    more = {"select": "best", "samples": 2} if name == "sample" else {}
    assert "has 3 labels (worse, equal, better)" in refused(name, **{ROLES[name]: where}, **more)


def test_an_adapter_of_several_labels_is_refused(refused, snapshots, tmp_path):
    scalar = new_scalar(str(snapshots / "policy"), ["a", "b"], 0)
    model = add_adapters(scalar, Sft(model="x", data="x", out="x", lora_rank=2), scalar=True, seed=0)
    model.save_pretrained(tmp_path / "two", save_embedding_layers=False)
    assert "has 2 labels" in refused("ppo", **{"rewards.helpful": tmp_path / "two"})


def test_an_encoder_is_no_scorer(refused, tokenizer, tmp_path):
    """Its class keeps `num_labels=1` and would be read at the first token."""
    config = DistilBertConfig(vocab_size=len(tokenizer), dim=16, n_layers=1, n_heads=2, hidden_dim=32, num_labels=1)
    where = saved(DistilBertForSequenceClassification(config), tokenizer, tmp_path / "encoder")
    said = refused("ppo", **{"rewards.helpful": where})
    assert "DistilBertForSequenceClassification is no decoder" in said and "MODULE:FUNCTION" in said


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("sft", {"max_length": 64}, "reads 40 tokens, and --max_length is 64"),
        ("ppo", {"max_length": 41}, "reads 40 tokens, and --max_length is 41"),
        ("sample", {"max_length": 36}, "--max_length with --max_new_tokens is 42"),
        ("dpo", {"max_length": 38}, "--max_length with --max_new_tokens is 44"),
    ],
)
def test_what_is_longer_than_the_model_reads_is_refused_by_the_knob(
    name, changes, said, refused, commands, tokenizer, tmp_path
):
    """Learned positions end with a traceback: in the first long batch, or behind the last step in what is drawn."""
    config = OPTConfig(**SMALL, vocab_size=len(tokenizer), ffn_dim=32, word_embed_proj_dim=16, pad_token_id=0)
    config.max_position_embeddings = 40
    where = saved(OPTForCausalLM(config), tokenizer, tmp_path / "short")
    assert said in refused(name, model=where, **changes)
    fits = {"max_length": 40} if name != "sample" else {"max_length": 34}
    if name in ("sft", "sample"):
        assert commands.run(name, tmp_path / "run", model=where, **fits) == 0


def test_a_scorer_of_other_tokens_says_when_a_conversation_is_too_long_for_it(tokenizer, tmp_path):
    where = llama(tokenizer, tmp_path / "s", LlamaForSequenceClassification, num_labels=1, max_position_embeddings=8)
    scorer = Scorer(str(where), role="preference", device=torch.device("cpu"))
    with pytest.raises(BadInput, match=r"reads 8 tokens, and a conversation has 9"):
        scorer.raw_scores([reply_group(range(5), range(4))], micro_tokens=99)
    assert scorer.raw_scores([reply_group(range(5), range(3))], micro_tokens=99).shape == (1,)


def test_tokens_without_a_row_are_refused_where_a_text_or_the_template_has_them(tokenizer, tmp_path):
    import copy

    own = copy.deepcopy(tokenizer)
    own.add_tokens(["<|picture|>"], special_tokens=True)
    where = llama(own, tmp_path / "unused", vocab_size=len(tokenizer))
    preflight({"model": str(where)})  # no text of ours comes to it
    own.chat_template = own.chat_template.replace("<|bos|>", "<|bos|><|picture|>", 1)
    own.save_pretrained(where)
    with pytest.raises(BadInput, match=r"<\|picture\|> are beyond the \d+ rows.*resize_token_embeddings"):
        preflight({"model": str(where)})
    own = copy.deepcopy(tokenizer)
    own.add_tokens(["heron"])
    where = llama(own, tmp_path / "word", vocab_size=len(tokenizer))
    with pytest.raises(BadInput, match="heron are beyond"):
        preflight({"model": str(where)})
    padded = llama(tokenizer, tmp_path / "padded", vocab_size=len(tokenizer) + 7)
    assert any("7 of them are no token" in finding.said for finding in model_findings(str(padded)))


@pytest.mark.parametrize("name", ["evaluate", "dpo", "ppo"])
def test_a_reference_of_as_many_but_other_tokens_is_refused(name, refused, snapshots, tokenizer, tmp_path):
    """The same number of rows: every id is read, and means something else."""
    other = train_tokenizer(["an entirely different book about whales and ships"] * 9, 300)
    where = llama(other, tmp_path / "other", vocab_size=len(tokenizer))
    assert f"the reference {where} has another vocabulary" in refused(name, reference=where)


def test_a_reference_may_lack_pad_and_have_further_control_tokens(snapshots, tokenizer, tmp_path):
    import copy

    own = copy.deepcopy(tokenizer)
    own.add_tokens(["<|picture|>"], special_tokens=True)
    where = str(llama(own, tmp_path / "more"))
    (found,) = reference_findings(str(snapshots / "policy"), where)
    assert found.level == "fine"
    # the other way round the policy has a token that its reference has no row for
    (found,) = reference_findings(where, str(snapshots / "policy"))
    assert found.level == "wrong"


def test_what_a_server_would_add_and_what_cannot_be_saved_is_said(snapshots, tmp_path):
    shutil.copytree(snapshots / "policy", tmp_path / "theirs")
    file = tmp_path / "theirs" / "generation_config.json"
    file.write_text(json.dumps({"do_sample": False, "temperature": 0.3, "repetition_penalty": 1.1, "min_p": 0.1}))
    server, kept = generation_findings(str(tmp_path / "theirs"))
    assert server.said == "a server draws by temperature 0.3, min_p 0.1, repetition_penalty 1.1"
    assert "temperature" in kept.said and "cannot be saved" in kept.said
    assert (server.level, kept.level) == ("note", "note") and "saved without them" in kept.remedy
    (plain,) = generation_findings(str(snapshots / "policy"))
    assert plain.level == "fine"


@pytest.fixture
def logged():
    """What is logged meanwhile, by whichever library."""
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("", "transformers", "peft")]
    for logger in loggers:
        logger.addHandler(handler)
    yield said
    for logger in loggers:
        logger.removeHandler(handler)


def test_weights_that_are_missing_are_named_and_no_library_alarms_for_a_new_head(commands, tmp_path, capfd, logged):
    assert commands.run("preference", tmp_path / "lora", lora_rank=2, epochs=0.5) == 0
    load_scalar(str(tmp_path / "lora" / "snapshot" / "adapter"), role="preference")
    said = "".join([*capfd.readouterr(), *logged])
    assert "MISSING" not in said and "newly initialized" not in said and "Warning" not in said
    where = shutil.copytree(commands.snapshots / "policy", tmp_path / "torn")
    weights = load_file(where / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, where / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"no weights in it for model\.layers\.1\.mlp\.up_proj\.weight"):
        load_policy(str(where))
