"""SmolLM2-135M-Instruct as its makers publish it, where ACCORD_SMOLLM2 names a folder that it was converted into."""

import os

import pytest
import torch

from accord.config import Sampling
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.models.loading import load_policy
from accord.models.places import POLICY
from accord.models.saving import save_model
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.stages.shared import sample_settings

WHERE = os.environ.get("ACCORD_SMOLLM2", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not WHERE, reason="ACCORD_SMOLLM2 names no folder")]
ASKED = Turn("user", "What is the capital of France?")
THREE = (ASKED, Turn("assistant", "Paris."), Turn("user", " And of\n\n Spain, since 1561?"))


@pytest.fixture(scope="module")
def renderer():
    return load_renderer(WHERE)


def test_ids_are_the_tokenizers_own(renderer):
    for turns in ((ASKED,), THREE, (Turn("system", "Be brief."), *THREE)):
        messages = [turn._asdict() for turn in turns]
        own = renderer.tokenizer.apply_chat_template
        assert list(renderer.prompt_ids(turns)) == own(messages, add_generation_prompt=True, return_dict=False)
        ours = list(renderer.conversation(turns, "Madrid, it is.").ids)
        answered = [*messages, {"role": "assistant", "content": "Madrid, it is."}]
        assert ours == own(answered, return_dict=False)[: len(ours)]
        assert ours[-1] == renderer.end == renderer.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_its_answer_stops_where_generate_stops_and_so_does_its_saved_snapshots(renderer, tmp_path):
    """All but greedily: at this temperature no other token than the likeliest is drawn."""
    model = load_policy(WHERE, trainable=False)
    settings = sample_settings(Sampling(temperature=1e-3, max_new_tokens=24), renderer, 1, 0)
    prompts = [renderer.prompt_ids((ASKED,)), renderer.prompt_ids(THREE)]
    drawn = [rollout.ids for rollout in sample(model, prompts, settings)]
    for prompt, ids in zip(prompts, drawn, strict=True):
        asked = torch.tensor([prompt])
        theirs = model.generate(asked, attention_mask=torch.ones_like(asked), do_sample=False, max_new_tokens=24)
        assert list(ids) == theirs[0, len(prompt) :].tolist()
    assert drawn[0][-1] == renderer.end and "Paris" in renderer.text(drawn[0])
    save_model(model, renderer.tokenizer, tmp_path, dict(POLICY), "")
    again = load_renderer(str(tmp_path))
    assert (again.stops, again.tokenizer.pad_token) == (renderer.stops, "<|endoftext|>")
    assert not again.tells_apart(renderer)
    assert [r.ids for r in sample(load_policy(str(tmp_path), trainable=False), prompts, settings)] == drawn


def test_64_greedy_replies_are_generates_token_by_token(renderer):
    asked = ["What is {}?", "Write two lines about {}.", "Why do people like {}?", "Is {} dangerous?"]
    asked += ["List three facts about {}.", "Tell me a joke about {}.", "Translate '{}' into French.", "Who sells {}?"]
    about = ["rain", "a bicycle", "the number 17", "tea", "an owl", "electricity", "old maps", "bread"]
    model = load_policy(WHERE, trainable=False)
    settings = SampleSettings(1, 0.0, 32, renderer.stops, 0, vocabulary=renderer.vocabulary)
    prompts = [renderer.prompt_ids((Turn("user", form.format(of)),)) for form in asked for of in about]
    drawn = sample(model, prompts, settings)
    parted = {}
    for prompt, rollout in zip(prompts, drawn, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=32)
        if list(rollout.ids) != theirs[0, len(prompt) :].tolist():
            parted[renderer.text(prompt)] = (rollout.ids, theirs[0, len(prompt) :].tolist())
    assert len(prompts) == 64 and not parted, parted
    assert len({rollout.finish for rollout in drawn}) == 2  # some end, some are cut off
