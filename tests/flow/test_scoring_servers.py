"""Rewards and costs of PPO scored by servers: the same run as with models of its own, and none but those meant."""

import json
import threading

import pytest
import torch

from accord.data.chat import train_tokenizer
from accord.disk import read_lines
from accord.engine.packing import reply_group
from accord.engine.remote import fleet as fleets
from accord.errors import BadInput
from accord.lineage import model_key
from accord.models.policy import new_policy
from accord.models.saving import save_model
from accord.models.scalar import Scorer, new_scalar
from accord.models.scorers import ConversationScorer, open_scorer
from accord.models.text_scorers import RemoteScorer
from accord.records import Prompt, Turn
from accord.run import RunFolder
from accord.stages.serve.scores import readings_of

CPU = torch.device("cpu")
PLAIN = {"kind": "none", "shift": 0.0, "scale": 1.0}
# critics start from their scorers where these are here, so there are none
ASKED = {"advantages": "rloo", "samples": 2, "steps": 2}


def numbers(folder):
    clock = ("seconds", "tokens_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in read_lines(folder / "metrics.jsonl")]


def alike(rows, others):
    for one, other in zip(rows, others, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-5, abs=1e-5), (one["step"], key)


def served(snapshots, serve):
    """A reward at two addresses, and a cost whose normaliser and calibration its server tells."""
    places = [serve(snapshots / "reward") + "/scores" for _ in range(2)]
    return {"rewards.helpful": ",".join(places), "costs.harm": serve(snapshots / "calibrated") + "/scores"}


def dies_once(monkeypatch, serve, url, *, back, after):
    """A server that goes away behind the first iteration, and comes back after so many seconds, with this snapshot."""
    plain = RunFolder.log

    def log(run, row):
        plain(run, row)
        if row["step"] == 1:
            serve.stop(url)
            threading.Timer(after, serve.again, (url, back)).start()

    monkeypatch.setattr(RunFolder, "log", log)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fleets, "PAUSE", 0.02)
    monkeypatch.setattr(fleets, "LONGEST", 0.1)


def test_served_scorers_give_the_run_that_models_of_this_process_give(commands, snapshots, serve, tmp_path):
    """Under a limit on the calibrated unsafe share; costs enter the advantages squashed, and λ as they are."""
    assert commands.run("unsafe", tmp_path / "own", **ASKED) == 0
    assert commands.run("unsafe", tmp_path / "served", **served(snapshots, serve), **ASKED) == 0
    alike(numbers(tmp_path / "own"), numbers(tmp_path / "served"))
    told = json.loads((tmp_path / "served/data/servers.json").read_text())
    assert told == {
        name: model_key(str(snapshots / of)) for name, of in (("helpful", "reward"), ("harm", "calibrated"))
    }


def test_a_server_that_dies_and_comes_back_loses_nothing(commands, snapshots, serve, tmp_path, monkeypatch, capsys):
    asked = served(snapshots, serve)
    assert commands.run("unsafe", tmp_path / "whole", **asked, **ASKED) == 0
    url = asked["costs.harm"].removesuffix("/scores")
    dies_once(monkeypatch, serve, url, back=snapshots / "calibrated", after=0.3)
    assert commands.run("unsafe", tmp_path / "run", **asked, **ASKED) == 0
    # the server that came back may pack other rows together than the first: the last bits are not the same everywhere
    alike(numbers(tmp_path / "whole"), numbers(tmp_path / "run"))
    assert f"{url}/scores is away" in capsys.readouterr().out


def test_a_server_that_comes_back_as_another_model_ends_the_run(
    commands, snapshots, serve, tmp_path, monkeypatch, capsys
):
    url, plain = serve(snapshots / "cost"), RunFolder.log
    dies_once(monkeypatch, serve, url, back=snapshots / "cost2", after=0.1)
    changes = {**ASKED, "costs.harm": f"{url}/scores", "checkpoint_every": 1}
    assert commands.run("limited", tmp_path / "run", **changes) == 2
    assert "came back as another model" in capsys.readouterr().err
    assert commands.run("limited", tmp_path / "run", resume="true", **changes) == 2
    assert "serves another model than when this run began" in capsys.readouterr().err
    serve.stop(url)
    serve.again(url, snapshots / "cost")
    monkeypatch.setattr(RunFolder, "log", plain)
    assert commands.run("limited", tmp_path / "run", resume="true", **changes) == 0


def test_what_is_not_what_was_meant_is_refused_before_anything_is_drawn(commands, snapshots, serve, tmp_path, capsys):
    reward, cost = (serve(snapshots / name) + "/scores" for name in ("reward", "cost"))
    for where, said in (
        (cost, "serves a cost model, and a preference model is needed; give it to --costs"),
        (f"{reward},{cost}", "serves another model than"),
        ("http://127.0.0.1:9/scores", "is the server running?"),
        ("http:///scores", "write http://HOST:PORT/scores"),
    ):
        assert commands.run("ppo", tmp_path / "run", **{"rewards.helpful": where}) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_server_with_another_tokenizer_reads_a_reply_as_the_model_here_does(serve, renderer, tmp_path):
    """Texts are sent, and which of the replies were cut: those are read at their last token."""
    other = train_tokenizer(["the cat sees a river", "a big dog runs with salt"] * 20, 280)
    policy = new_policy("nano", other, max_length=64, seed=3)
    save_model(policy, other, tmp_path / "p", {"role": "policy", "criterion": "", "normalizer": PLAIN}, "")
    described = {"role": "preference", "criterion": "helpful", "normalizer": PLAIN}
    save_model(new_scalar(str(tmp_path / "p"), "helpful", 4), other, tmp_path / "foreign", described, "")
    prompts = [Prompt((Turn("user", word),), "", "") for word in ("cat", "dog", "river")]
    drawn = [renderer.reply_ids("the cat runs")[:-1], renderer.reply_ids("a big dog"), renderer.reply_ids("")]
    groups = [reply_group(renderer.prompt_ids(p.turns), ids) for p, ids in zip(prompts, drawn, strict=True)]
    texts = [renderer.text(ids) for ids in drawn]
    here = ConversationScorer(str(tmp_path / "foreign"), "preference", renderer, CPU, "helpful")
    there = open_scorer(serve(tmp_path / "foreign") + "/scores", "preference", renderer, CPU, "helpful")
    assert isinstance(there, RemoteScorer) and here.renderer is not None
    found = [scorer.scores(prompts, texts, groups, micro_tokens=99) for scorer in (here, there)]
    assert torch.allclose(*found, atol=1e-6)
    assert there.about.tokenizer != renderer.identity


def test_a_server_of_several_criteria_is_asked_for_the_one_of_its_name(serve, snapshots, tokenizer, renderer, tmp_path):
    heads = ["helpful", "kind"]
    model = new_scalar(str(snapshots / "policy"), heads, 4)
    normalizers = {"helpful": {**PLAIN, "kind": "standard", "shift": 0.5, "scale": 2.0}, "kind": PLAIN}
    described = {"role": "preference", "criterion": "", "heads": heads, "normalizer": normalizers}
    save_model(model, tokenizer, tmp_path / "two", described, "")
    url = serve(tmp_path / "two") + "/scores"
    groups = [reply_group(renderer.prompt_ids((Turn("user", "why"),)), renderer.reply_ids("the cat"))]
    prompts = [Prompt((Turn("user", "why"),), "", "")]
    for head in heads:
        own = Scorer(str(tmp_path / "two"), role="preference", device=CPU, head=head)
        far = open_scorer(url, "preference", renderer, CPU, head)
        assert torch.allclose(
            far.scores(prompts, ["the cat"], groups, micro_tokens=99), own.scores(groups, micro_tokens=99), atol=1e-6
        )
    assert readings_of(own).keys() == set(heads)
    with pytest.raises(BadInput, match="has a head for each of helpful, kind; use one as the model's NAME"):
        open_scorer(url, "preference", renderer, CPU, "honest")


def test_a_server_that_asks_for_a_key_answers_those_who_have_it(serve, snapshots, renderer, monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    url = serve(snapshots / "reward", key_variable="A_KEY") + "/scores"
    groups = [reply_group(renderer.prompt_ids((Turn("user", "why"),)), renderer.reply_ids("the cat"))]
    asked = [Prompt((Turn("user", "why"),), "", "")], ["the cat"], groups
    with pytest.raises(BadInput, match=r"401.*put its key into ACCORD_SCORES_KEY"):
        open_scorer(url, "preference", renderer, CPU)
    monkeypatch.setenv("ACCORD_SCORES_KEY", "secret")
    assert torch.isfinite(open_scorer(url, "preference", renderer, CPU).scores(*asked, micro_tokens=99)).all()
    with pytest.raises(BadInput, match="no such environment variable"):
        serve(snapshots / "reward", key_variable="ANOTHER_KEY")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "one of them, and not none"),
        ({"groups": [{"prefix": [5], "replies": [[10**6]]}]}, "has not"),
        ({"groups": [{"prefix": [5], "replies": [[]]}]}, "no ids"),
        ({"groups": [{"prefix": [5], "replies": [[6]]}], "conversations": [[]]}, "one of them"),
        (
            {
                "conversations": [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]],
                "ended": [1, 0],
            },
            "2",
        ),
    ],
)
def test_a_request_that_means_nothing_is_refused(body, said, serve, snapshots):
    import httpx2

    answer = httpx2.post(serve(snapshots / "reward") + "/scores", json=body, timeout=60, trust_env=False)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]
