"""Engines are exchanged for one another, so they are asked alike; and what each does with what it is asked."""

import inspect
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from accord.engine import engines
from accord.engine.decode import sampler
from accord.engine.decode.draw import SampleSettings
from accord.engine.engines import Engine, InProcess, Pushed, Served, open_engine
from accord.engine.remote import fleet
from accord.engine.remote.fleet import ServerAway
from accord.records import Rollout


def signature(function):
    given = inspect.signature(function)
    return [(p.name, p.kind, p.default, p.annotation) for p in given.parameters.values()], given.return_annotation


@pytest.mark.parametrize("engine", [InProcess, Served])
def test_every_engine_has_the_signature_of_the_protocol(engine):
    assert signature(engine.sample) == signature(Engine.sample)


def test_the_sampler_takes_the_same_between_its_model_and_its_memory():
    asked, returned = signature(sampler.sample)
    assert [name for name, *_ in asked[4:]] == ["cache_tokens", "stems"]
    assert ([asked[1:4], returned]) == [signature(Engine.sample)[0][1:], signature(Engine.sample)[1]]


def test_this_process_draws_from_what_it_follows_with_its_own_memory(monkeypatch):
    asked = []
    monkeypatch.setattr(engines, "sample", lambda *given, **named: asked.append((given, named)) or ["drawn"])
    engine = InProcess("first", cache_tokens=77, stems="stems")
    assert engine.sample("prompts", "settings", "finished") == ["drawn"]
    engine.follow("second")
    engine.close()
    engine.sample("prompts", "settings")
    memory = {"cache_tokens": 77, "stems": "stems"}
    assert asked == [
        (("first", "prompts", "settings", "finished"), memory),
        (("second", "prompts", "settings", None), memory),
    ]
    assert not InProcess.remote and Served.remote


class Near:
    """A server without a network: what it was told, and a reply of the prompt's number."""

    def __init__(self, url, away=False):
        self.url, self.away, self.loaded, self.asked = url, away, [], []

    def is_well(self):
        return not self.away

    def load(self, directory):
        if self.away:
            raise ServerAway("away", 0, 0.0)
        weights = Path(directory)
        found = sorted(path.name for path in weights.iterdir()) if weights.is_dir() else []
        self.loaded.append((directory, oct(weights.stat().st_mode)[-3:] if found else "", found))

    def ask(self, settings, prompt, number, rows):
        self.asked.append((settings, prompt, number, rows))
        return [Rollout(prompt, (number,), (-0.5,), "length", 1.0, "")]


def test_the_knob_gives_the_policy_or_servers_with_as_many_rows_as_its_head(monkeypatch, tmp_path):
    text = SimpleNamespace(vocab_size=117)
    policy = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    here = open_engine("", policy, tmp_path, cache_tokens=77)
    assert isinstance(here, InProcess) and (here.model, here.cache_tokens, here.stems) == (policy, 77, None)
    assert open_engine("", policy, tmp_path).cache_tokens == sampler.CACHED
    asked = []
    monkeypatch.setattr(engines, "servers_at", lambda *given: asked.append(given) or [Near("a")])
    served = open_engine("there", policy, tmp_path, (512, "--max_length"))
    open_engine("there", policy, tmp_path)
    assert asked == [("there", 512, "--max_length"), ("there", 0, "")]
    assert (served.folder, served.rows, [server.url for server in served.fleet.servers]) == (tmp_path, 117, ["a"])


def test_weights_that_are_written_stay_until_others_are_read(tmp_path):
    """A server that comes back in between reads them; and another user's server may."""
    policy = SimpleNamespace(save_pretrained=lambda where: (Path(where) / "weights").write_text("here"))
    server = Near("a")
    engine = Served([server], tmp_path, 120)
    assert engine.pushed == Pushed("", frozenset())
    for number in (1, 2):
        engine.follow(policy)
        (lying,) = tmp_path.iterdir()
        assert len(server.loaded) == number and server.loaded[-1] == (str(lying), "755", ["weights"])
        assert engine.pushed == Pushed(str(lying)) and lying.name.startswith(".weights-")
        assert lying.suffix == ".part"
    for _ in range(2):
        engine.close()
    assert not list(tmp_path.iterdir())
    engine.follow(policy)
    shutil.rmtree(engine.pushed.directory)
    engine.close()  # whoever has tidied up


def test_a_prompt_is_asked_by_its_number_and_a_server_without_the_weights_reads_them_first(monkeypatch, tmp_path):
    monkeypatch.setattr(fleet, "PAUSE", 0.0)
    server = Near("a", away=True)
    engine = Served([server], tmp_path, 120)
    engine.follow_directory("some/snapshot")
    assert engine.pushed == Pushed("some/snapshot", frozenset({"a"})) and not server.loaded
    server.away = False
    settings, told = SampleSettings(1, 1.0, 4, frozenset({2}), seed=3, numbers=[7, 5]), []
    rollouts = engine.sample([(11, 12), (13,)], settings, lambda place, drawn: told.append((place, drawn)))
    assert [(r.prompt_ids, r.ids) for r in rollouts] == [((11, 12), (7,)), ((13,), (5,))]
    assert sorted(server.asked, key=lambda asked: -asked[2]) == [
        (settings, (11, 12), 7, 120),
        (settings, (13,), 5, 120),
    ]
    assert sorted(told) == [(0, [rollouts[0]]), (1, [rollouts[1]])]
    assert [directory for directory, *_ in server.loaded] == ["some/snapshot"]
    assert engine.pushed == Pushed("some/snapshot", frozenset())


def test_a_server_that_was_told_of_no_weights_keeps_its_own(tmp_path):
    server = Near("a")
    engine = Served([server], tmp_path, 120)
    engine.fleet.revive(server)
    assert not server.loaded
    engine.pushed = Pushed("some/snapshot", frozenset({"a", "b"}))
    engine.fleet.revive(server)
    assert [directory for directory, *_ in server.loaded] == ["some/snapshot"]
    assert engine.pushed == Pushed("some/snapshot", frozenset({"b"}))
