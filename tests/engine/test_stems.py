"""What prompts begin with is computed once for all calls, and changes nothing that is drawn."""

import pytest

from accord.engine.decode import stems as stems_file
from accord.engine.decode.decoder import Decoder
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.decode.stems import Stems
from accord.engine.packing import common_beginning
from accord.labelers.local import LocalLabeler
from accord.stages.constitution import revise
from tests.engine.test_decoder import BEGINNING, PROMPTS, make


@pytest.fixture
def model():
    return make("qwen2")


@pytest.fixture
def counted(monkeypatch):
    """Tokens of every pass of prompts through the trunk; steps have a token a row and are left out."""
    found = []
    trunk, step = Decoder.trunk, Decoder.forward
    inside = []

    def forward(self, ids, reaches):
        inside.append(1)
        try:
            return step(self, ids, reaches)
        finally:
            inside.pop()

    def counting(self, ids, *rest):
        if not inside:
            found.append(len(ids))
        return trunk(self, ids, *rest)

    monkeypatch.setattr(Decoder, "forward", forward)
    monkeypatch.setattr(Decoder, "trunk", counting)
    return found


def drawn(model, prompts, stems=None, n=1, cache_tokens=4096):
    settings = SampleSettings(n, 1.0, 6, frozenset({0}), 3)
    return [(r.ids, r.logprobs) for r in sample(model, prompts, settings, cache_tokens=cache_tokens, stems=stems)]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("cache_tokens", [4096, 150])
def test_a_beginning_is_computed_once_for_all_calls_and_changes_nothing(model, counted, n, cache_tokens):
    calls = [[(*BEGINNING, *prompt) for prompt in PROMPTS[k:]] for k in (0, 1, 2)]
    plain = [drawn(model, prompts, n=n, cache_tokens=cache_tokens) for prompts in calls]
    del counted[:]
    stems = Stems()
    for prompts, expected in zip(calls, plain, strict=True):
        for (ids, logprobs), (theirs, other) in zip(
            drawn(model, prompts, stems, n, cache_tokens), expected, strict=True
        ):
            assert ids == theirs and logprobs == pytest.approx(other, abs=2e-4)
    common = len(BEGINNING) + 1  # all begin with the same token
    rests = sum(len(prompt) - common for prompts in calls for prompt in prompts)
    assert sum(counted) == common + rests


def test_the_first_part_of_a_stem_will_do_and_a_longer_one_is_computed(model, counted):
    drawn(model, PROMPTS[:1])  # the decoder is tried once
    del counted[:]
    stems = Stems()
    longer = (*BEGINNING, *range(1, 20), *BEGINNING)
    drawn(model, [(*longer, 3), (*longer, 4)], stems)
    assert counted == [len(longer), 2]
    del counted[:]
    drawn(model, [(*BEGINNING, 25, 7), (*BEGINNING, 26)], stems)
    assert sum(counted) == 3, "what they share with the longer one is there"
    del counted[:]
    other = (*BEGINNING, *(28,) * 40)
    drawn(model, [(*other, 3), (*other, 4)], stems)
    assert counted == [len(other), 2]
    assert [stem.ids for stem in stems._kept] == [longer, other], "a stem that is used again is kept once"


def test_short_beginnings_are_not_kept_and_few_are(model, counted, monkeypatch):
    stems = Stems()
    drawn(model, [(1, 2, 3), (1, 2, 4)], stems)
    assert not stems._kept
    monkeypatch.setattr(stems_file, "KEPT", 2)
    for first in (5, 6, 7):
        drawn(model, [(first, *BEGINNING, 3), (first, *BEGINNING, 4)], stems)
    assert [stem.ids[0] for stem in stems._kept] == [6, 7]


def test_a_run_of_critiques_and_revisions_computes_its_examples_once(commands, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(revise, "CHUNK", 4)
    asked = []
    write = LocalLabeler.write

    def seen(self, prompts, how):
        asked.extend(self._renderer.prompt_ids(tuple(turns)) for turns in prompts)
        return write(self, prompts, how)

    monkeypatch.setattr(LocalLabeler, "write", seen)
    assert commands.run("constitution", tmp_path / "run", shots=2, revisions=2) == 0
    behind = [ids for ids in asked if len(ids) > 400]
    stem = common_beginning(behind)
    assert stem > 300 and len(behind) > 24, "critiques and revisions of most replies in two steps"
    own = sum(map(len, asked)) - stem * len(behind)
    assert own < sum(counted) <= own + stem + 40, "and the probe of the decoder"
