"""Servers that others wrote: `transformers serve`, and vLLM where ACCORD_VLLM names the python of one that has it.

They serve an exported snapshot: SmolLM2 where ACCORD_SMOLLM2 names a folder of it, else a tiny one. What vLLM does here
is what tests/fixtures/like_vllm.py does in the quick tests.
"""

import itertools
import json
import os
import shutil

import httpx2
import pytest
import torch

from accord.cli import main
from accord.data.chat import train_tokenizer
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.engines import open_engine
from accord.engine.remote.vllm import Server
from accord.errors import BadInput
from accord.models.loading import load_policy
from accord.models.places import POLICY
from accord.models.policy import new_policy
from accord.models.saving import save_model
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from tests.conftest import TEXT, read_rows, teach
from tests.fixtures.like_vllm import OPINIONS, gap_of, like_rows_without_a_token
from tests.fixtures.serving import program

PYTHON = os.environ.get("ACCORD_VLLM", "")
SMOLLM2 = os.environ.get("ACCORD_SMOLLM2", "")
PATIENCE = 300  # seconds for a server to load its model
LONGEST = 40  # tokens of a reply
QUESTIONS = [
    "What is the capital of France?",
    "Name three birds that live by the sea.",
    "How do I boil an egg?",
    "Write one sentence about rain.",
    "What is 7 times 8?",
    "Why is the sky blue?",
    "Give me a word that rhymes with cat.",
    "Who wrote Hamlet?",
    "Translate 'good morning' into Spanish.",
    "How many legs has a spider?",
    "Tell me a short joke.",
    "What do bees make?",
    "Is the sun a star?",
    "List two uses of salt.",
    "What colour is a ripe banana?",
    "How do I say no politely?",
]
# on a CPU, with little memory, and without the hub
QUIETLY = {
    "PYTHONPATH": "",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0",
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

pytestmark = pytest.mark.slow
needs_vllm = pytest.mark.skipif(not PYTHON, reason="ACCORD_VLLM names no python with vllm")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A policy with heads as wide as vLLM's kernels ask, which has learned to end its replies."""
    tokenizer = train_tokenizer([TEXT] * 50, 300)
    model = new_policy("small", tokenizer, max_length=512, seed=0)
    folder = tmp_path_factory.mktemp("small")
    save_model(model, tokenizer, folder / "start", dict(POLICY), "")
    renderer = load_renderer(str(folder / "start"))
    teach(model, renderer, 0)
    save_model(model, renderer.tokenizer, folder / "policy", dict(POLICY), "")
    return folder / "policy"


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    """A snapshot, and what `accord export` makes of it."""
    snapshot = SMOLLM2 or str(small)
    out = tmp_path_factory.mktemp("exported") / "model"
    assert main(["export", snapshot, "--out", str(out), "--dtype", "f32"]) == 0
    return snapshot, str(out)


@pytest.fixture(scope="module")
def greedy(exported):
    """The snapshot's renderer and model, and its greedy replies to the questions as `sample` draws them."""
    renderer, model = load_renderer(exported[0]), load_policy(exported[0], trainable=False)
    prompts = [renderer.prompt_ids((Turn("user", question),)) for question in QUESTIONS]
    settings = SampleSettings(1, 0.0, LONGEST, renderer.stops, 0, vocabulary=renderer.vocabulary)
    return renderer, model, sample(model, prompts, settings)


def served_by_vllm(where, folder, *more):
    command = [PYTHON, "-m", "vllm.entrypoints.cli.main", "serve", where, "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", 1024, "--max-num-seqs", 32, "--logprobs-mode", "processed_logprobs", *more]
    return program(command, folder / "vllm.txt", PATIENCE, **QUIETLY)


@pytest.fixture(scope="module")
def vllm(exported, tmp_path_factory):
    """Where vLLM serves the exported snapshot."""
    with served_by_vllm(exported[1], tmp_path_factory.mktemp("vllm")) as url:
        yield url


@pytest.fixture(scope="module")
def opinionated(small, tmp_path_factory):
    """Where vLLM serves a policy whose checkpoint has opinions, and rows without a token that it likes; the policy."""
    folder = tmp_path_factory.mktemp("opinionated")
    policy, tokenizer = load_policy(str(small), trainable=False), load_renderer(str(small)).tokenizer
    rows = policy.config.vocab_size
    like_rows_without_a_token(policy, rows)
    save_model(policy, tokenizer, folder / "model", dict(POLICY), "")
    file = folder / "model" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | OPINIONS | {"max_new_tokens": 5, "do_sample": True}))
    longest = ["--override-generation-config", json.dumps({"max_new_tokens": 30})]
    with served_by_vllm(folder / "model", folder, *longest) as url:
        yield url, policy, rows


def asked(url, model, question, **more):
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
    body |= {"max_tokens": LONGEST, **more}
    answer = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=300, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def near_tie(model, prompt, ours, theirs):
    """Where two greedy replies of one length part, and how much likelier the first's token is there, in nats."""
    place = next(i for i, (a, b) in enumerate(itertools.zip_longest(ours, theirs)) if a != b)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *ours[:place]]])).logits[0, -1]
    return place, float(logits[ours[place]] - logits[theirs[place]])


@needs_vllm
def test_vllm_answers_an_export_as_sample_does_and_stops_where_training_ended(vllm, exported, greedy):
    renderer, model, ours = greedy
    parted = {}
    for question, rollout in zip(QUESTIONS, ours, strict=True):
        choice = asked(vllm, exported[1], question, return_token_ids=True)
        if tuple(choice["token_ids"]) != rollout.ids:
            parted[question] = near_tie(model, rollout.prompt_ids, rollout.ids, choice["token_ids"])
            continue
        assert choice["finish_reason"] == rollout.finish
        assert choice["message"]["content"] == renderer.text(rollout.ids)
    assert any(rollout.finish == "stop" for rollout in ours)
    print(f"{len(QUESTIONS) - len(parted)} of {len(QUESTIONS)} equal token by token; parted: {parted}")
    assert all(gap < 1e-3 for _, gap in parted.values()), parted


@needs_vllm
def test_weights_reach_vllm_at_every_iteration_of_ppo(vllm, exported, tmp_path, monkeypatch):
    """The gap between its log-probs and the trainer's stays rounding, though the weights have moved."""
    (tmp_path / "lengths.py").write_text(
        "def short(conversations):\n    return [-len(c[-1]['content']) for c in conversations]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": q}) + "\n" for q in QUESTIONS))
    snapshot = exported[0]
    line = ["ppo", "--model", snapshot, "--data", tmp_path / "prompts.jsonl", "--rewards.short", "lengths:short"]
    line += ["--engine", vllm, "--steps", 3, "--batch_size", 4, "--samples", 2, "--mini_batch_size", 4, "--seed", 1]
    line += ["--max_new_tokens", 8, "--max_length", 128, "--advantages", "rloo", "--precision", "f32", "--threads", 1]
    line += ["--lora_rank", 8, "--learning_rate", 1e-3, "--out", tmp_path / "run"]
    assert main([*map(str, line)]) == 0
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    print([(row["policy/sampler_gap"], row["objective/kl"]) for row in rows])
    assert len(rows) == 3 and all(row["policy/sampler_gap"] < 1e-4 for row in rows)
    # what it has now is not what it was started with
    start, ended = (load_policy(where, trainable=False) for where in (snapshot, str(tmp_path / "run" / "snapshot")))
    engine = open_engine(vllm, ended, tmp_path)
    engine.follow(ended)
    drawn = engine.sample([(5, 6, 7), (8, 9, 5)], SampleSettings(2, 1.0, 12, frozenset({2}), seed=1))
    sent, stale = gap_of(ended, drawn), gap_of(start, drawn)
    print(f"gap to the weights sent {sent:.1e}, to those it was started with {stale:.1e}")
    assert sent < 1e-4 and stale > 10 * sent


@needs_vllm
@pytest.mark.parametrize("left_open", ["", *OPINIONS])
def test_vllm_takes_what_a_request_leaves_open_from_the_checkpoint_and_ours_leaves_nothing(
    left_open, opinionated, tmp_path, monkeypatch
):
    url, policy, rows = opinionated
    call = Server._call

    def forgetful(self, route, body=None):
        return call(self, route, {k: v for k, v in body.items() if k != left_open} if body else body)

    monkeypatch.setattr(Server, "_call", forgetful)
    engine = open_engine(url, policy, tmp_path)
    drawn = engine.sample([(5, 6, 7), (8, 9, 5), (10, 11)], SampleSettings(4, 1.0, 8, frozenset({2}), seed=3))
    gap = gap_of(policy, drawn)
    print(left_open or "nothing left open", gap)
    assert gap > 1e-2 if left_open else gap < 1e-4
    assert left_open or any(token >= rows for r in drawn for token in r.ids)  # rows without a token: nobody said no


@needs_vllm
def test_vllm_never_draws_a_row_without_a_token(opinionated, tmp_path):
    url, policy, rows = opinionated
    engine = open_engine(url, policy, tmp_path)
    settings = SampleSettings(8, 1.0, 20, frozenset({2}), seed=3, vocabulary=frozenset(range(rows)))
    drawn = engine.sample([(5, 6, 7), (8, 9, 5), (10, 11)], settings)
    assert len(drawn) == 24 and all(token < rows for r in drawn for token in r.ids)
    # log-probs are of what it draws from: the whole head's less the share of rows that have a token
    assert gap_of(policy, drawn) > 1e-2


@needs_vllm
def test_a_reply_that_vllm_is_told_to_cut_off_is_noticed(opinionated, tmp_path):
    url, policy, _ = opinionated
    engine = open_engine(url, policy, tmp_path)
    with pytest.raises(BadInput, match="after 30 of 40 tokens"):
        engine.sample([(5, 6, 7)], SampleSettings(1, 1.0, 40, frozenset(), seed=3))


def test_transformers_serve_answers_an_export_as_sample_does(exported, greedy, tmp_path):
    renderer, _, ours = greedy
    command = shutil.which("transformers")
    if command is None:
        pytest.skip("no `transformers` command here")
    with program([command, "serve", exported[1], "--device", "cpu"], tmp_path / "log.txt", PATIENCE) as url:
        theirs = [asked(url, exported[1], question)["message"]["content"] for question in QUESTIONS]
    same = [renderer.text(rollout.ids).strip() == text.strip() for rollout, text in zip(ours, theirs, strict=True)]
    print(f"{sum(same)} of {len(same)} replies equal")
    assert all(same), [(renderer.text(r.ids), t) for r, t, equal in zip(ours, theirs, same, strict=True) if not equal]
