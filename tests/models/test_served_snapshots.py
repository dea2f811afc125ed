"""Snapshots of other people's models: they stop where they are served, and stay so once saved and read again."""

import json

import pytest
import torch

from accord.config import Sampling
from accord.engine.decode.sampler import sample
from accord.models.loading import load_policy
from accord.models.places import POLICY
from accord.models.saving import save_model
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.stages.shared import sample_settings
from fixtures.families import FAMILIES, published

ASKED = (Turn("user", "Hello there, why?"),)
THREE = (*ASKED, Turn("assistant", "The cat sees 3 mice."), Turn("user", "And 12 birds?"))


# a tokenizer of sentences, several ends of a turn, one that thinks, one without a PAD of its own, one of channels
QUICK = ("llama-2", "llama-3.1", "gemma-3", "gpt-2", "r1-distill", "gpt-oss")


@pytest.fixture(
    scope="module",
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def snapshot(request, tmp_path_factory):
    family = FAMILIES[request.param]
    return family, published(family, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def again(snapshot, tmp_path_factory):
    """The same, written by Accord."""
    _, where = snapshot
    folder = tmp_path_factory.mktemp("again")
    save_model(load_policy(where), load_renderer(where).tokenizer, folder, dict(POLICY), "")
    return folder


def answers(model, token):
    """Let the model say one token, whatever it is asked."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.get_input_embeddings().weight[:, 0] = 1.0
        model.model.norm.weight[0] = 1.0
        model.lm_head.weight[token, 0] = 30.0


def test_sampling_stops_at_the_end_of_a_turn_and_at_every_id_of_the_generation_config(snapshot):
    family, where = snapshot
    renderer, model = load_renderer(where), load_policy(where)
    settings = sample_settings(Sampling(max_new_tokens=3), renderer, 1, 0)
    stops = {family.end, *family.eos}
    for name in stops:
        answers(model, renderer.tokenizer.convert_tokens_to_ids(name))
        (rollout,) = sample(model, [renderer.prompt_ids(ASKED)], settings)
        assert (rollout.finish, len(rollout.ids)) == ("stop", 1), name
        assert renderer.text(rollout.ids).removeprefix("<think>") == ""
    answers(model, next(i for i in range(50) if i not in renderer.stops))
    (rollout,) = sample(model, [renderer.prompt_ids(ASKED)], settings)
    assert (rollout.finish, len(rollout.ids)) == ("length", 3)


def test_ids_without_a_token_are_never_drawn(snapshot):
    _, where = snapshot
    renderer, model = load_renderer(where), load_policy(where)
    answers(model, len(renderer.tokenizer) + 1)  # what an untrained row can do
    settings = sample_settings(Sampling(max_new_tokens=4), renderer, 8, 0)
    rollouts = sample(model, [renderer.prompt_ids(ASKED)], settings)
    assert all(token < len(renderer.tokenizer) for rollout in rollouts for token in rollout.ids)


def test_a_saved_snapshot_gives_the_same_ids_stops_and_padding(snapshot, again):
    _, where = snapshot
    first, second = load_renderer(where), load_renderer(str(again))
    assert not first.tells_apart(second) or first.clock != second.clock
    assert (first.end, first.stops, first.template) == (second.end, second.stops, second.template)
    assert first.tokenizer.pad_token == second.tokenizer.pad_token
    told = {"clock": lambda: "2024-07-26T12:00:00"}
    first, second = load_renderer(where, **told), load_renderer(str(again), **told)
    for turns in (ASKED, THREE):
        assert first.conversation(turns, "Yes.") == second.conversation(turns, "Yes.")


def test_config_generation_config_and_tokenizer_of_a_snapshot_agree(again):
    renderer = load_renderer(str(again))
    for name in ("config", "generation_config"):
        config = json.loads((again / f"{name}.json").read_text())
        assert config["pad_token_id"] == renderer.tokenizer.pad_token_id
        eos = config["eos_token_id"]
        listed = eos if isinstance(eos, list) else [eos]
        assert listed[0] == renderer.end and set(listed) == renderer.stops and len(set(listed)) == len(listed)
    stored = json.loads((again / "tokenizer_config.json").read_text())
    assert stored["pad_token"] == renderer.tokenizer.pad_token


def test_words_survive_a_decoder_that_skips_special_tokens(again):
    """As where PAD was "!", the first token of byte-level vocabularies, and left every text."""
    tokenizer = load_renderer(str(again)).tokenizer
    for text in ("Yes!!", "the cat! 3"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        said = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert said.strip() == text


def test_a_pad_that_texts_have_is_replaced(tmp_path):
    """A snapshot of before, whose PAD is "!"."""
    family = FAMILIES["gpt-2"]
    where = published(family, tmp_path)
    tokenizer = family.tokenizer()
    tokenizer.pad_token = "!"
    tokenizer.save_pretrained(where)
    assert load_renderer(where).tokenizer.pad_token == "<|endoftext|>"


def test_a_model_without_a_generation_config_is_served_by_its_config(tmp_path):
    where = published(FAMILIES["llama-3.1"], tmp_path)
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    ids = FAMILIES["llama-3.1"].tokenizer().convert_tokens_to_ids(["<|end_of_text|>", "<|eot_id|>"])
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": ids}))
    assert load_renderer(where).stops == set(ids)
