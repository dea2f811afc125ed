"""Slots of a decoder's cache, lanes and batches of prompts, kept beginnings: by hand, without a model's arithmetic."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, LlamaConfig, Qwen3Config

from accord.engine.decode import sampler
from accord.engine.decode.decoder import Pool
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.fallback import batches
from accord.engine.decode.sampler import Lane, cache_bytes, make_lanes, sample
from accord.engine.decode.stems import KEPT, Stems


def pool():
    """Of 2 layers, 4 slots, 2 heads, 5 tokens of 3 numbers."""
    return Pool(2, 4, 2, 5, 3, torch.empty(0))


def test_an_empty_pool_is_zeros_and_reaches_nothing():
    empty = pool()
    assert empty.cache.shape == (2, 2, 4, 2, 5, 3) and not empty.cache.any() and empty.cache.dtype == torch.float32
    assert empty.flat.shape == (2, 2, 40, 3) and empty.flat.data_ptr() == empty.cache.data_ptr()
    assert (empty.slots, empty.kv_heads, empty.capacity, empty.live, empty.reach) == (4, 2, 5, 0, (0, 0))
    assert empty.lengths.tolist() == empty.sizes.tolist() == [0, 0, 0, 0]
    assert Pool(2, 4, 2, 5, 3, torch.empty(0, dtype=torch.bfloat16)).cache.dtype == torch.bfloat16


def test_what_is_written_stands_at_its_slot_head_and_position():
    written = pool()
    slots, positions = torch.tensor([2, 0]), torch.tensor([1, 4])
    places = written.places(slots, positions)
    assert places.tolist() == [21, 26, 4, 9]  # (slot · 2 heads + head) · 5 tokens + position
    key, value = torch.arange(12.0).view(2, 2, 3) + 1, torch.arange(12.0).view(2, 2, 3) + 20
    written.write(1, places, key, value)
    expected = torch.zeros(2, 2, 4, 2, 5, 3)
    for token, (slot, position) in enumerate(zip(slots, positions, strict=True)):
        expected[1, 0, slot, :, position], expected[1, 1, slot, :, position] = key[token], value[token]
    assert torch.equal(written.cache, expected)


def test_rows_enter_behind_the_live_ones_grow_and_leave():
    held = pool()
    held.enter(np.array([3, 1]))
    assert (held.live, held.reach) == (2, (2, 4))
    held.enter(np.array([2]))
    held.grow()
    assert held.sizes.tolist() == held.lengths.tolist() == [4, 2, 3, 0] and held.reach == (3, 5)
    held.cache[:] = torch.arange(4.0).view(1, 1, 4, 1, 1, 1)
    assert held.keep(np.array([False, False, True])).tolist() == [2]
    assert held.sizes.tolist() == held.lengths.tolist() == [3, 0, 0, 0] and (held.live, held.reach) == (1, (1, 4))
    assert (held.cache[:, :, 0, :, :3] == 2).all() and (held.cache[:, :, 1:] != 0).all()
    held.enter(np.array([4, 1]))
    assert held.sizes.tolist() == held.lengths.tolist() == [3, 4, 1, 0]
    assert held.keep(np.array([True, True, False])).tolist() == [0, 1] and held.lengths.tolist() == [3, 4, 0, 0]


def test_the_last_of_those_that_stay_fill_the_gaps_with_all_they_have():
    held = pool()
    held.enter(np.array([2, 4, 1, 3]))
    held.cache[:] = torch.arange(1.0, 5.0).view(1, 1, 4, 1, 1, 1)
    assert held.keep(np.array([False, True, False, True])).tolist() == [3, 1]
    assert held.sizes.tolist() == held.lengths.tolist() == [3, 4, 0, 0]
    assert (held.cache[:, :, 0, :, :3] == 4).all() and (held.cache[:, :, 0, :, 3:] == 1).all()
    assert (held.cache[:, :, 1] == 2).all()


def lane(slots=12, n=2):
    return Lane(range(3, 9), 20, n, slots, 5)


def test_prompts_enter_a_lane_once_a_quarter_of_its_slots_is_free():
    some = lane()
    assert (some.n, some.slots, some.capacity) == (2, 12, 20)
    assert some.enter() == [3, 4, 5, 6, 7, 8] and not some.waiting
    assert some.reply.tolist() == list(range(6, 18)) and some.count.tolist() == [0] * 12
    assert some.ids.shape == some.logprobs.shape == (12, 5)
    large = Lane(range(30), 20, 2, 24, 5)  # 12 prompts at once
    assert large.enter() == list(range(12)) and large.enter() == []
    large.reply, large.count = large.reply[4:], large.count[4:]
    assert large.enter() == [], "two prompts of twelve"
    large.reply, large.count = large.reply[1:], large.count[1:]
    assert large.enter() == [], "there is no place for half a prompt"
    large.reply, large.count = large.reply[1:], large.count[1:]
    assert large.enter() == [12, 13, 14]
    assert large.reply.tolist() == [*range(6, 24), *range(24, 30)] and large.count.tolist() == [0] * 24


def test_the_last_prompts_enter_when_there_is_place_for_all_of_them():
    large = Lane(range(14), 20, 2, 24, 5)
    assert large.enter() == list(range(12))
    large.reply, large.count = large.reply[2:], large.count[2:]
    assert large.enter() == []
    large.reply, large.count = large.reply[2:], large.count[2:]
    assert large.enter() == [12, 13]
    one = Lane(range(3), 20, 4, 4, 5)
    assert one.enter() == [0] and one.enter() == []


def test_tokens_of_a_lane_stay_with_their_replies():
    some = lane(slots=4)
    assert some.enter() == [3, 4]
    some.append(np.array([5, 6, 7, 8]), np.array([-0.5, -0.6, -0.7, -0.8]))
    some.append(np.array([15, 16, 17, 18]), np.array([-1.5, -1.6, -1.7, -1.8]))
    ended = np.array([True, False, True, False])
    assert list(some.leave(ended)) == [(6, ([5, 15], [-0.5, -1.5])), (8, ([7, 17], [-0.7, -1.7]))]
    some.reorder(np.array([3, 1]))
    assert some.reply.tolist() == [9, 7] and some.count.tolist() == [2, 2]
    some.append(np.array([28, 26]), np.array([-2.8, -2.6]))
    settings = SampleSettings(2, 1.0, 5, frozenset(), seed=0, ends=lambda ids: ids == [6, 16, 26])
    assert some.ended(settings).tolist() == [False, True]
    assert list(some.leave(np.array([True, True]))) == [
        (9, ([8, 18, 28], [-0.8, -1.8, -2.8])),
        (7, ([6, 16, 26], [-0.6, -1.6, -2.6])),
    ]


def shapes(lanes):
    return [(list(lane.waiting), lane.capacity, lane.n, lane.slots, lane.ids.shape[1]) for lane in lanes]


@pytest.mark.parametrize(
    ("lengths", "n", "first"),
    [
        ([21, 20, 11, 10], 16, 3),  # 21 > 2 · 10
        ([21, 20, 11, 11], 16, 4),
        ([22, 20, 11, 10], 16, 3),  # 22 is twice 11
        ([23, 20, 11, 10], 16, 2),  # two prompts of 16 replies are enough for a lane
        ([23, 20, 11, 10], 15, 3),  # of 15 they are not, three are
        ([23, 11], 32, 1),
        ([23, 11], 31, 2),
    ],
)
def test_where_a_lane_ends(lengths, n, first):
    lanes = make_lanes(lengths, n, 7, 10**6)
    assert list(lanes[0].waiting) == list(range(first))
    assert [i for lane in lanes for i in lane.waiting] == list(range(len(lengths)))
    assert [lane.capacity for lane in lanes] == [lengths[lane.waiting[0]] + 7 for lane in lanes]


def test_a_third_lane_begins_where_the_second_has_its_replies():
    lanes = make_lanes([90] * 2 + [40] * 2 + [10] * 3, 16, 7, 10**6)
    assert shapes(lanes) == [([0, 1], 97, 16, 32, 7), ([2, 3], 47, 16, 32, 7), ([4, 5, 6], 17, 16, 48, 7)]
    lanes = make_lanes([90] * 2 + [40] + [10] * 3, 16, 7, 10**6)
    assert [list(lane.waiting) for lane in lanes] == [[0, 1], [2, 3], [4, 5]], "one prompt of 16 replies is no lane"


def test_lanes_share_the_cache_in_proportion():
    """Two lanes of 40 · 50 and 40 · 29 tokens: of 1580 every one holds half of its replies."""
    for cache_tokens, n_slots in ((3160, 40), (3159, 39), (1580, 20), (158, 2), (10, 1)):
        lanes = make_lanes([40] * 40 + [19] * 40, 1, 10, cache_tokens)
        assert [lane.slots for lane in lanes] == [n_slots, n_slots]
    assert [lane.slots for lane in make_lanes([20] * 10, 3, 5, 375)] == [15]


@pytest.mark.parametrize(
    ("lengths", "n", "cache_tokens", "expected"),
    [
        ([10, 9, 8], 1, 36, [(0, 3)]),
        ([10, 9, 8], 1, 35, [(0, 2), (2, 3)]),
        ([10] * 5, 1, 24, [(0, 2), (2, 4), (4, 5)]),
        ([10] * 5, 2, 48, [(0, 2), (2, 4), (4, 5)]),
        ([24, 10], 40, 10**6, [(0, 2)]),  # 24 = 2 · 10 + 4
        ([25, 10], 40, 10**6, [(0, 1), (1, 2)]),
        ([25, 25, 25, 10], 16, 10**6, [(0, 4)]),  # 64 rows
        ([25, 25, 25, 25, 10], 13, 10**6, [(0, 4), (4, 5)]),  # 65
        ([30, 13, 10], 40, 10**6, [(0, 2), (2, 3)]),
        ([30, 12, 10], 40, 10**6, [(0, 1), (1, 3)]),
        ([], 2, 24, []),
    ],
)
def test_where_a_batch_of_the_fallback_ends(lengths, n, cache_tokens, expected):
    assert list(batches(lengths, n, 2, cache_tokens)) == expected


def of_config(config):
    """What is asked of a model for the bytes of its cache."""
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    return SimpleNamespace(config=config, parameters=lambda: iter([parameter]))


@pytest.mark.parametrize(
    ("config", "bytes_of_one"),
    [
        # keys and values, layers, heads of them, numbers, bytes
        (LlamaConfig(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2), 2 * 3 * 2 * 6),
        (Qwen3Config(hidden_size=24, num_hidden_layers=5, num_attention_heads=4, head_dim=8), 2 * 5 * 32 * 8),
        (GPT2Config(n_embd=24, n_layer=3, n_head=4), 2 * 3 * 4 * 6),
    ],
)
def test_the_bytes_of_a_token_in_the_cache(monkeypatch, config, bytes_of_one):
    monkeypatch.setattr(sampler, "bare", lambda model: model)
    assert cache_bytes(of_config(config)) == 2 * bytes_of_one
    with torch.autocast("cpu", torch.bfloat16):
        assert cache_bytes(of_config(config)) == 2 * bytes_of_one


def test_no_prompts_have_no_replies_and_the_longest_text_settles_how_they_are_decoded(monkeypatch):
    asked = []

    def decode(model, prompts, settings, *, cache_tokens):
        assert settings.numbers == [numbers[prompt] for prompt in prompts] and not model.training
        for number in reversed(range(2 * len(prompts))):  # the last first
            yield number, ([9, 10 + number, 2], [-0.5, -0.25 * number, -1.0])

    monkeypatch.setattr(sampler, "decodes", lambda model, longest: asked.append(longest))
    monkeypatch.setattr(sampler, "decode_padded", decode)
    model = torch.nn.Identity().train()
    settings = SampleSettings(2, 0.7, 4, frozenset({2}), seed=1, version="step-3", numbers=[7, 3, 5])
    prompts = [(5, 6), (7, 8, 9), (4,)]
    numbers = dict(zip(prompts, settings.numbers, strict=True))
    told = []
    drawn = sample(model, prompts, settings, lambda place, replies: told.append((place, replies)))
    assert asked == [7] and model.training
    # decoded the longest first: places 1, 0, 2
    expected = [
        (prompt, (9, 10 + k, 2), (-0.5, -0.25 * k, -1.0))
        for prompt, ks in zip(prompts, ((2, 3), (0, 1), (4, 5)), strict=True)
        for k in ks
    ]
    assert [(r.prompt_ids, r.ids, r.logprobs) for r in drawn] == expected
    assert {(r.finish, r.temperature, r.version) for r in drawn} == {("stop", 0.7, "step-3")}
    assert told == [(2, drawn[4:]), (0, drawn[:2]), (1, drawn[2:4])]
    monkeypatch.setattr(sampler, "decode_padded", lambda model, prompts, settings, *, cache_tokens: iter(()))
    assert sample(model.eval(), [], SampleSettings(2, 0.7, 4, frozenset({2}), seed=1)) == [] and not model.training
    assert asked == [7]


class Beginnings:
    """A decoder of which stems are asked; the keys and values of a token are the token."""

    def __init__(self):
        self.computed = []

    def beginning(self, ids):
        self.computed.append(len(ids))
        return torch.tensor(ids).view(1, 1, 1, -1, 1).repeat(2, 2, 3, 1, 4)


def words(count, first=100):
    return tuple(range(first, first + count))


def stem_of(stems, decoder, *prompts):
    """How many tokens the stem has, of which ids and cache are asserted; 0 for none."""
    stem = stems.of(decoder, prompts)
    if stem is None:
        return 0
    assert stem.ids == prompts[0][: len(stem.ids)] and stem.cache.shape == (2, 2, 3, len(stem.ids), 4)
    assert stem.cache[1, 1, 2, :, 3].tolist() == list(stem.ids)
    return len(stem.ids)


def test_a_stem_leaves_each_prompt_a_token_of_its_own():
    decoder = Beginnings()
    assert stem_of(Stems(), decoder, (*words(32), 1), (*words(32), 2, 3)) == 32
    assert stem_of(Stems(), decoder, (*words(31), 1), (*words(31), 2, 3)) == 0
    assert stem_of(Stems(), decoder, words(33)) == 32
    assert stem_of(Stems(), decoder, words(32)) == 0
    assert stem_of(Stems(), decoder, words(40), words(50)) == 39
    assert decoder.computed == [32, 32, 39]


def test_a_stem_is_computed_anew_where_32_tokens_more_are_shared():
    stems, decoder = Stems(), Beginnings()
    assert stem_of(stems, decoder, (*words(64), 1)) == 64
    assert stem_of(stems, decoder, (*words(95), 1)) == 64
    assert stem_of(stems, decoder, (*words(40), *words(30, 500), 1)) == 40
    assert stem_of(stems, decoder, (*words(32), *words(20, 500), 1)) == 32
    assert stem_of(stems, decoder, (*words(31), *words(20, 500), 1)) == 0
    assert decoder.computed == [64]
    assert stem_of(stems, decoder, (*words(96), 1)) == 96
    assert stem_of(stems, decoder, (*words(20), *words(32, 500), 1)) == 52
    assert decoder.computed == [64, 96, 52]


def test_the_stem_that_shares_most_is_used_and_those_used_last_are_kept():
    stems, decoder = Stems(), Beginnings()
    for first in (1000, 2000, 3000, 4000):
        assert stem_of(stems, decoder, (*words(40, first), 1)) == 40
    assert stem_of(stems, decoder, (*words(40, 1000), 2)) == 40 and len(decoder.computed) == KEPT == 4
    assert stem_of(stems, decoder, (*words(40, 5000), 1)) == 40
    assert [stem.ids[0] for stem in stems._kept] == [3000, 4000, 1000, 5000]
