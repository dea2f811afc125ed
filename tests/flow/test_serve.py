"""`accord serve` over real sockets: chat as OpenAI's clients ask, scores as stages read them, and what is refused."""

import json

import httpx2
import pytest
import torch

from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.texts import text_group
from accord.models.loading import load_policy
from accord.models.scalar import Scorer
from accord.models.scorers import open_scorer
from accord.models.tokenizer import load_renderer
from accord.records import Prompt, Turn
from accord.stages.serve.config import Serve

CPU = torch.device("cpu")
ASKED = [{"role": "system", "content": "be"}, {"role": "user", "content": "why the cat"}]
TURNS = (Turn("system", "be"), Turn("user", "why the cat"))


def post(url, body, **options):
    return httpx2.post(url, json=body, timeout=60, trust_env=False, **options)


def said(snapshot, temperature, seed=0, tokens=12, number=0):
    renderer = load_renderer(str(snapshot))
    settings = SampleSettings(1, temperature, tokens, renderer.stops, seed, numbers=[number])
    (rollout,) = sample(load_policy(str(snapshot)), [renderer.prompt_ids(TURNS)], settings)
    return renderer.text(rollout.ids), rollout


def test_chat_answers_what_sample_draws_whole_and_in_pieces(serve, snapshots):
    url = serve(snapshots / "policy") + "/v1/chat/completions"
    text, rollout = said(snapshots / "policy", 0.7, seed=5)
    body = {"messages": ASKED, "temperature": 0.7, "seed": 5, "max_tokens": 12}
    answer = post(url, {**body, "n": 2}).json()
    assert [choice["message"]["content"] for choice in answer["choices"]] == [
        text,
        said(snapshots / "policy", 0.7, seed=5, number=1)[0],
    ]
    assert answer["choices"][0]["finish_reason"] == rollout.finish
    assert answer["usage"]["prompt_tokens"] == len(rollout.prompt_ids)
    streamed = post(url, {**body, "stream": True, "stream_options": {"include_usage": True}})
    lines = [line.removeprefix("data: ") for line in streamed.text.split("\n\n") if line]
    *events, usage, done = lines
    chunks = [json.loads(event)["choices"][0] for event in events]
    assert done == "[DONE]" and json.loads(usage)["usage"]["completion_tokens"] == len(rollout.ids)
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == text
    assert len(chunks) > 4 and chunks[-1]["finish_reason"] == rollout.finish
    cold = post(url, {"messages": ASKED, "temperature": 0, "max_tokens": 12}).json()
    assert cold["choices"][0]["message"]["content"] == said(snapshots / "policy", 1e-6)[0]


def test_a_reply_ends_before_a_stop_text_that_is_never_sent(serve, snapshots):
    url = serve(snapshots / "policy") + "/v1/chat/completions"
    text, _ = said(snapshots / "policy", 0.7, seed=5)
    stop = text[len(text) // 2 :][:3]
    before = text[: text.index(stop)]
    body = {"messages": ASKED, "temperature": 0.7, "seed": 5, "max_tokens": 12, "stop": [stop, "never there"]}
    choice = post(url, body).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (before, "stop")
    events = post(url, {**body, "stream": True}).text.split("\n\n")[:-2]
    parts = [json.loads(e.removeprefix("data: "))["choices"][0]["delta"].get("content", "") for e in events]
    assert "".join(parts) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"top_p": 0.5}, "top_p"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"tools": []}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 5000}, "reads 2048 tokens"),
        ({"messages": [{"role": "assistant", "content": "hm"}]}, "where a reply is due"),
        ({"messages": []}, "messages"),
        ({"n": 2, "stream": True}, "one reply"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "text"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_not_ignored(change, words, serve, snapshots):
    answer = post(serve(snapshots / "policy") + "/v1/chat/completions", {"messages": ASKED, **change})
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


def test_scores_are_those_that_stages_read(serve, snapshots):
    """Raw; to those who know no normaliser, of a preference model normalised, of a cost model as limits are held on."""
    renderer = load_renderer(str(snapshots / "policy"))
    prompts, replies = [Prompt(TURNS, "", ""), Prompt((Turn("user", "how"),), "", "")], ["the cat runs", ""]
    groups = [text_group(renderer, prompt, [reply]) for prompt, reply in zip(prompts, replies, strict=True)]
    for name, role in (("reward", "preference"), ("calibrated", "cost")):
        url = serve(snapshots / name) + "/scores"
        scorer = Scorer(str(snapshots / name), role=role, device=CPU)
        over = open_scorer(url, role, renderer, CPU).raw_scores(prompts, replies, groups, micro_tokens=99)
        raw = scorer.raw_scores(groups, micro_tokens=99)
        assert torch.allclose(over, raw, atol=1e-6)
        answer = post(url, {"conversations": [[*ASKED, {"role": "assistant", "content": "the cat runs"}]]}).json()
        assert answer["raw"] == pytest.approx([float(raw[0])], abs=1e-6) and answer["role"] == role
        assert post(url, {"conversations": [ASKED]}).status_code == 400
        assert post(url.replace("scores", "v1/chat/completions"), {"messages": ASKED}).status_code == 404


def test_a_page_of_another_name_does_not_reach_it(serve, snapshots):
    url = serve(snapshots / "policy")
    assert httpx2.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"] == "policy"
    assert httpx2.get(f"{url}/v1/models", trust_env=False, headers={"Host": "elsewhere.org"}).status_code == 400
    assert Serve(snapshot="x").host == "127.0.0.1"
