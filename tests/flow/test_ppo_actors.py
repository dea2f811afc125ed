"""The roles of policy optimisation: which moves, which reads, and what is refused before any training."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from accord.errors import BadInput
from accord.models.critics import SeparateCritics
from accord.models.text_scorers import RemoteScorer
from accord.records import Prompt, Turn
from accord.stages.ppo import actors as ppo_actors
from accord.stages.ppo.actors import Actors, Prompts
from tests.flow.test_ppo_road import LIMITED, make_config

PROMPTS = [Prompt((Turn("user", text),), text, "by hand") for text in "abcdefg"]


def test_roles_by_what_moves_and_what_reads():
    """Each of two critics is a model; heads on the policy are none, and a reference that follows is not frozen."""
    roles = dict.fromkeys(Actors.__dataclass_fields__)
    policy, average, following, reference, first, second = (nn.Linear(1, 1) for _ in range(6))
    critics = SeparateCritics({"reward": first, "harm": second}, {})
    roles |= {"policy": policy, "critics": critics, "reference": SimpleNamespace(separate=reference)}
    roles |= {"rewards": {"a": 1}, "costs": {"b": 2}, "watched": {"c": 3}}
    actors = Actors(**roles)
    assert actors.scorers == {"a": 1, "b": 2, "c": 3} and actors.moving == [policy, critics]
    assert actors.frozen == [reference] and actors.models == [reference, policy, first, second]
    assert actors.result is policy
    actors.train()
    assert policy.training and first.training
    actors.train(False)
    assert not (policy.training or first.training or second.training)
    roles |= {"following": following, "average": average, "reference": SimpleNamespace(separate=following)}
    actors = Actors(**roles)
    assert actors.moving == [policy, critics, following, average] and actors.frozen == [] and actors.result is average
    assert actors.models == [policy, following, average, first, second]
    assert Actors(**roles | {"reference": SimpleNamespace(separate=None)}).frozen == []


def remote(snapshot, where="http://s"):
    scorer = object.__new__(RemoteScorer)
    scorer.where, scorer.about = where, snapshot and SimpleNamespace(snapshot=snapshot)
    return scorer


def test_a_server_of_another_model_than_when_the_run_began_is_refused(tmp_path):
    written = {}
    run = SimpleNamespace(path=tmp_path, write_json=lambda name, found: written.update({name: found}))
    ppo_actors.refuse_other_servers(run, {"here": SimpleNamespace(about=1), "silent": remote(None)})
    assert written == {}, "nothing was told"
    scorers = {"a": remote("one"), "b": remote("two", "http://t"), "silent": remote(None)}
    ppo_actors.refuse_other_servers(run, scorers)
    assert written == {"data/servers.json": {"a": "one", "b": "two"}}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "servers.json").write_text('{"a": "one"}')
    ppo_actors.refuse_other_servers(run, scorers)
    (tmp_path / "data" / "servers.json").write_text('{"b": "three"}')
    said = r"^http://t serves another model than when this run began; serve that one, or choose another --out"
    with pytest.raises(BadInput, match=said):
        ppo_actors.refuse_other_servers(run, scorers)


def test_a_limit_on_a_slice_without_prompts_is_refused():
    ppo_actors.refuse_empty_slices({"harm": "b,a", "lies": "c"}, PROMPTS[:3], "--data")
    said = "--limit_slices.lies z: no prompt of that slice in --eval_data; there are a, b, c"
    with pytest.raises(BadInput, match=f"^{said}$"):
        ppo_actors.refuse_empty_slices({"harm": "b,a", "lies": "c,z"}, PROMPTS[2::-1], "--eval_data")


@pytest.mark.parametrize(
    ("knobs", "loaded"),
    [
        ({"lora_rank": 4}, None),
        ({"lora_rank": 4, "reference": "x"}, "x"),
        ({"reference": "x"}, "x"),
        ({}, "m"),
    ],
)
def test_the_reference_is_a_model_of_its_own_unless_an_adapter_can_be_switched_off(monkeypatch, knobs, loaded):
    asked = []
    model = SimpleNamespace(to=lambda device: ("model", device))
    monkeypatch.setattr(ppo_actors, "load_policy", lambda name, *, trainable: asked.append((name, trainable)) or model)
    found = ppo_actors.own_reference(make_config(**knobs), "device")
    assert asked == ([] if loaded is None else [(loaded, False)])
    assert found == (None if loaded is None else ("model", "device"))


@pytest.mark.parametrize("split", ["", "policy"])
def test_prompts_are_read_checked_and_kept_apart(monkeypatch, split):
    events = []
    read = {"data": PROMPTS[:3], "eval_data": PROMPTS[3:5]}

    def load_all(reader, sources, config, run, **more):
        events.append(("load", reader, sources, more))
        return read[more["what"]]

    def drop(renderer, prompts, *given, for_replies):
        events.append(("drop", renderer, *given, for_replies))
        return prompts[1:]

    monkeypatch.setattr(ppo_actors, "load_all", load_all)
    monkeypatch.setattr(ppo_actors, "drop_long_prompts", drop)
    for name in ("refuse_trained_prompts", "refuse_empty_slices", "refuse_overlap"):
        monkeypatch.setattr(ppo_actors, name, lambda *given, name=name, **more: events.append((name, *given, more)))
    renderers, slices = ["own", "other"], {"harm": "a"}
    knobs = {**LIMITED, "limit_slices": slices, "watch": {"w": "x"}, "split": split, "max_length": 90}
    config = make_config(**knobs, eval_data="e", max_new_tokens=7)
    found = ppo_actors.read_prompts_of(config, "run", renderers)
    assert found == Prompts(PROMPTS[1:3], PROMPTS[4:5], [])
    common = {"renderers": renderers}
    held_out = "evaluation" if split else ""
    ids = [{PROMPTS[4].id}, [p.id for p in PROMPTS[1:3]]]
    scorers = ["r", "c", "x"]
    assert events == [
        ("load", ppo_actors.read_prompts, "d", {"split": split, "what": "data", **common}),
        ("refuse_trained_prompts", PROMPTS[:3], scorers, "--data", {"labelled": True}),
        ("refuse_empty_slices", slices, PROMPTS[:3], "--data", {}),
        ("drop", "own", 90, "run", "data", 7),
        ("load", ppo_actors.read_prompts, "e", {"split": held_out, "what": "eval_data", **common}),
        ("refuse_trained_prompts", PROMPTS[3:5], scorers, "--eval_data", {"labelled": True}),
        ("refuse_empty_slices", slices, PROMPTS[3:5], "--eval_data", {}),
        ("drop", "own", 90, "run", "eval_data", 7),
        ("refuse_overlap", *ids, "--eval_data", "--data", {}),
        ("refuse_trained_prompts", PROMPTS[4:5], ["m"], "--eval_data", {}),
    ]
    assert ppo_actors.read_prompts_of(make_config(), "run", renderers) == Prompts(PROMPTS[1:3], [], [])


@pytest.mark.parametrize("kind", ["text", "demonstrations"])
def test_other_text_is_read_as_its_kind_says(monkeypatch, kind):
    """Demonstrations come with their prompts, but for those that are too long."""
    events, read = [], [SimpleNamespace(prompt=name) for name in "abc"]
    loaded = lambda *given, **more: events.append((*given, more)) or read  # noqa: E731
    monkeypatch.setattr(ppo_actors, "load_all", loaded)
    monkeypatch.setattr(ppo_actors, "document_groups", lambda *given: ("documents", *given))
    monkeypatch.setattr(ppo_actors, "conversation_group", lambda renderer, one, role: (renderer, one.prompt, role))
    dropped = lambda groups, shown, *given: events.append(given) or (groups[1:], shown[1:])  # noqa: E731
    monkeypatch.setattr(ppo_actors, "drop_long", dropped)
    config = make_config(ptx_data="p", ptx_kind=kind, max_length=90)
    found = ppo_actors.read_other_text(config, "run", "renderer")
    if kind == "text":
        assert found == (("documents", "renderer", read, 90), [])
        assert events == [(ppo_actors.read_documents, "p", config, "run", {"what": "ptx_data"})]
    else:
        assert found == ([("renderer", name, "assistant") for name in "bc"], ["b", "c"])
        more = {"what": "ptx_data", "renderers": ["renderer"]}
        assert events == [(ppo_actors.read_demonstrations, "p", config, "run", more), (90, "run", "ptx_data")]
    events.clear()
    assert ppo_actors.read_other_text(make_config(), "run", "renderer") == ([], []) and events == []


def test_an_exact_kl_is_of_the_policy_beside_its_reference(monkeypatch):
    """By plain sums over a vocabulary of three, in either direction; hidden states that are known are not computed."""
    ours, theirs = torch.tensor([[0.2, -1.0, 0.5]]), torch.tensor([[1.0, 0.3, -0.7]])
    temperatures = []

    def head(policy, *, temperature):
        temperatures.append((policy, temperature))
        return lambda hidden: ours * hidden

    def logits(packing, *, temperature):
        temperatures.append((packing, temperature))
        return theirs

    monkeypatch.setattr(ppo_actors, "logits_head", head)
    monkeypatch.setattr(ppo_actors, "hidden_states", lambda policy, packing: 2.0)
    actors = SimpleNamespace(policy="policy", reference=SimpleNamespace(logits=logits))
    for hidden, scale in ((None, 2.0), (torch.tensor(3.0), 3.0)):
        p, q = (ours * scale).softmax(-1)[0].tolist(), theirs.softmax(-1)[0].tolist()
        for estimator, (one, other) in {"exact": (p, q), "exact-forward": (q, p)}.items():
            expected = sum(a * math.log(a / b) for a, b in zip(one, other, strict=True))
            found = ppo_actors.exact_kls(actors, "packing", estimator, temperature=0.7, hidden=hidden)
            assert found.tolist() == pytest.approx([expected], rel=1e-5)
    assert temperatures == [("policy", 0.7), ("packing", 0.7)] * 4
