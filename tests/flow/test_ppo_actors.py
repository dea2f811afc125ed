"""The roles of policy optimisation: which moves, which reads, and what is refused before any training."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from accord.errors import BadInput
from accord.models.critics import SeparateCritics
from accord.models.scalar import Scorer
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
    scorers = {"a": scored(None, average, following), "b": 2}
    assert Actors(**roles | {"rewards": scorers}).frozen == [average, following, reference]
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


class Bases:
    """Says of a model that it is shared."""

    def __init__(self):
        self.shared = []

    def share(self, model):
        self.shared.append(model)
        return f"shared {model}"


def scored(renderer, *models):
    """A scorer of this process, of some models."""
    scorer = object.__new__(Scorer)
    scorer.renderer, scorer.models = renderer, list(models)
    return scorer


@pytest.fixture
def prepare(monkeypatch):
    """`prepare(**knobs)` → prompts, actors, what was called with what, and whose bases are shared."""

    def go(**knobs):
        calls, bases = {}, Bases()
        policy = SimpleNamespace(to=lambda device: f"policy on {device}")
        critics = SimpleNamespace(to=lambda device: SimpleNamespace(names=("reward",), parts=lambda: ["critic"]))
        kinds = {"r": scored("of r", "r1", "r2"), "s": SimpleNamespace(renderer=None)}
        kinds |= {"w": scored("of w", "w1"), "c": scored("of c", "c1")}
        parts = {
            "open_renderer": "renderer",
            "Setting": lambda *given: SimpleNamespace(journal="journal", given=given),
            "open_limits": "limits",
            "read_prompts_of": Prompts(["t"], ["h"], []),
            "refuse_other_servers": None,
            "load_policy": lambda *given: "loaded",
            "add_adapters": lambda *given: policy,
            "open_engine": "engine",
            "cache_of": "cache",
            "copy_trained": lambda model: f"copy of {model}",
            "own_reference": "reference",
            "make_critics": critics,
            "read_other_text": (["text"], ["shown"]),
            "Reference": lambda *given: given,
        }

        def stand_in(name, found):
            def called(*given, **named):
                calls.setdefault(name, []).append((*given, *named.values()))
                return found(*given) if callable(found) else found

            monkeypatch.setattr(ppo_actors, name, called)

        for name, found in parts.items():
            stand_in(name, found)
        monkeypatch.setattr(ppo_actors, "BaseWeights", lambda: bases)
        opened = lambda named, setting: {name: kinds[where] for name, where in named.items()}  # noqa: E731
        monkeypatch.setattr(ppo_actors, "open_rewards", opened)
        scorer = lambda *given, on: calls.setdefault("open_scorer", []).append((*given, on)) or kinds["c"]  # noqa: E731
        monkeypatch.setattr(ppo_actors, "open_scorer", scorer)
        rewards = {"helpful": "r", "kind": "s"}
        config = make_config(**{"rewards": rewards, "watch": {"other": "w"}, "seed": 5, **knobs})
        prompts, actors = ppo_actors.prepare(config, SimpleNamespace(path="run"), WORLD)
        return config, prompts, actors, calls, bases.shared, kinds

    return go


WORLD = SimpleNamespace(device="device")


def test_every_role_is_read_before_any_training(prepare):
    config, prompts, actors, calls, shared, kinds = prepare(**LIMITED)
    run = calls["open_renderer"][0][1]
    assert prompts == Prompts(["t"], ["h"], ["shown"])
    assert calls["open_renderer"] == [("m", run, WORLD)] and calls["Setting"] == [
        (run, WORLD, "renderer", config.labels, "")
    ]
    assert calls["open_scorer"] == [("c", "cost", "renderer", "device", "harm", "")]
    assert calls["open_limits"] == [({"harm": 0.0}, "cost", {"harm": kinds["c"]})]
    assert calls["read_prompts_of"] == [(config, run, ["renderer", "of r", "of c", "of w"])]
    asked = {"helpful": kinds["r"], "kind": kinds["s"], "harm": kinds["c"], "other": kinds["w"]}
    assert calls["refuse_other_servers"] == [(run, asked)]
    assert calls["load_policy"] == [("m",)] and calls["add_adapters"] == [("loaded", config, False, 5)]
    assert calls["open_engine"] == [("", "policy on device", "run", config.most_tokens, "cache")]
    assert calls["cache_of"] == [(config, "policy on device")]
    assert shared == ["policy on device", "r1", "r2", "c1", "w1", "reference", "critic"]
    assert kinds["r"].models == ["shared r1", "shared r2"] and kinds["w"].models == ["shared w1"]
    assert "copy_trained" not in calls and calls["own_reference"] == [(config, "device")]
    starts = {"reward": kinds["r"], "harm": kinds["c"]}
    assert calls["make_critics"] == [("separate", "m", "policy on device", starts, 5, config)]
    assert calls["read_other_text"] == [(config, run, "renderer")]
    found = {
        name: getattr(actors, name) for name in ("policy", "reference", "renderer", "limits", "other_text", "engine")
    }
    assert found == {
        "policy": "policy on device",
        "reference": ("policy on device", "reference"),
        "renderer": "renderer",
        "limits": "limits",
        "other_text": ["text"],
        "engine": "engine",
    }
    assert actors.scorers == asked and list(actors.rewards) == ["helpful", "kind"] and list(actors.costs) == ["harm"]
    assert actors.critics.names == ("reward",) and actors.following is actors.average is None
    assert actors.journal == "journal" and actors.in_flight.take(0) is None


def test_followers_are_copies_and_methods_without_critics_have_none(prepare):
    knobs = {"advantages": "reinforce++", "refresh_every": 2, "weight_average": 0.5, "lora_rank": 4}
    _, _, actors, calls, shared, _ = prepare(**knobs)
    copy = "copy of policy on device"
    assert actors.following == actors.average == copy and actors.reference == ("policy on device", copy)
    assert calls["Setting"][0][-1] == "m" and "make_critics" not in calls and "own_reference" not in calls
    assert actors.critics.names == () and actors.limits == {} and "open_limits" not in calls
    assert shared == ["policy on device", "r1", "r2", "w1", copy]
