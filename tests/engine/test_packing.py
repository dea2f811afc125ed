"""The packing by hand, orders that see every item once per epoch, budgets."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from accord.engine.packing import (
    Group,
    Packing,
    Segment,
    attention_table,
    common_beginning,
    cut_by_tokens,
    length_mask,
    pack,
    pack_replies,
    reply_group,
)
from accord.training.order import batch_indices, steps_per_epoch, token_batches


def test_plan_of_a_shared_prompt_by_hand():
    packing = pack([reply_group((5, 6), (7, 8, 9), (4,)), reply_group((1,), (2, 3))])
    # the last token of a reply predicts nothing and is not run
    assert packing.ids.tolist() == [5, 6, 7, 8, 1, 2]
    assert packing.positions.tolist() == [0, 1, 2, 3, 0, 1]
    assert packing.rows.tolist() == [1, 2, 3, 1, 4, 5]
    assert packing.targets.tolist() == [7, 8, 9, 4, 2, 3]
    assert packing.owner.tolist() == [0, 0, 0, 1, 2, 2]
    assert packing.slots.tolist() == [0, 1, 2, 0, 0, 1]
    assert [(s.start, s.stop, s.keys) for s in packing.segments] == [
        (0, 2, ((0, 2),)),
        (2, 4, ((0, 2), (2, 4))),
        (4, 6, ((4, 6),)),
    ]


def test_plan_for_scores_reads_the_last_token_of_every_reply():
    packing = pack([reply_group((5, 6), (7, 8), (9,)), reply_group((), (1, 2, 3))], rows="last")
    assert packing.ids.tolist() == [5, 6, 7, 8, 9, 1, 2, 3]
    assert packing.ids[packing.rows].tolist() == [8, 9, 3]
    assert packing.positions[packing.rows].tolist() == [3, 2, 2]


def test_a_score_of_an_empty_reply_is_read_at_the_end_of_its_prompt():
    packing = pack([reply_group((5, 6, 4), (), (7, 8)), reply_group((3, 2), ())], rows="last")
    assert packing.ids.tolist() == [5, 6, 4, 7, 8, 3, 2]
    assert packing.rows.tolist() == [2, 4, 6]
    assert packing.targets.tolist() == packing.slots.tolist() == [0, 0, 0]
    assert packing.owner.tolist() == [0, 1, 2] and packing.replies == 3
    assert [(s.start, s.stop, s.keys) for s in packing.segments] == [
        (0, 3, ((0, 3),)),
        (3, 5, ((0, 3), (3, 5))),
        (5, 7, ((5, 7),)),
    ]


def test_texts_without_a_prompt_see_themselves_alone():
    packing = pack([reply_group((), (1, 2, 3), (4, 5))], rows="last")
    assert packing.positions.tolist() == [0, 1, 2, 0, 1]
    assert [(s.start, s.stop, s.keys) for s in packing.segments] == [(0, 3, ((0, 3),)), (3, 5, ((3, 5),))]


def test_tokens_of_a_group_and_those_that_carry_loss():
    """Three of the prompt and five of the replies; without a prompt the first of a text carries none."""
    masks = ((True, False, True), (True, True))
    assert Group((5, 6, 7), ((1, 2, 3), (4, 5)), masks).tokens == 8
    assert Group((5, 6, 7), ((1, 2, 3), (4, 5)), masks).trained == 4
    assert Group((), ((1, 2, 3), (4, 5)), masks).trained == 2
    assert Group((), ((1, 2, 3), ()), ((False, True, True), ())).trained == 2


@pytest.mark.parametrize(
    ("texts", "expected"),
    [([], 0), ([[4, 5, 6]], 3), ([[4, 5, 6], [4, 5], [4, 5, 7]], 2), ([[4, 5, 6], [4, 8, 6]], 1), ([[4], []], 0)],
)
def test_a_common_beginning_ends_with_the_shortest_text_or_the_first_that_differs(texts, expected):
    assert common_beginning(texts) == expected


def test_a_packing_moves_to_another_device_whole():
    packing = pack([reply_group((5, 6), (7, 8, 9), (4,))])
    assert packing.to(torch.device("cpu")) is packing
    fields = ("ids", "positions", "rows", "targets", "owner", "slots")
    sized = Packing(*(torch.zeros(n) for n in (1, 2)), packing.segments, *(torch.zeros(n) for n in (3, 4, 5, 6)), 7)
    moved = sized.to(torch.device("meta"))
    assert [(getattr(moved, f).device.type, len(getattr(moved, f))) for f in fields] == [
        ("meta", n + 1) for n in range(6)
    ]
    assert moved.segments is packing.segments and moved.replies == 7


def test_masks_choose_rows_and_the_first_token_of_a_text_is_predicted_by_nothing():
    group = Group((), ((1, 2, 3, 4),), ((True, False, True, True),))
    packing = pack([group])
    assert packing.targets.tolist() == [3, 4]
    assert group.trained == 2 == len(packing.rows)


def test_a_mask_of_another_length_than_its_reply_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        pack([Group((5,), ((1, 2, 3),), ((True, True),))])
    with pytest.raises(ValueError, match="shorter"):
        pack([Group((5,), ((1, 2), (3,)), ((True, True),))])


def test_scatter_puts_rows_back_into_replies():
    packing = pack([reply_group((5,), (7, 8), (9,))])
    assert packing.scatter(torch.tensor([1.0, 2.0, 3.0])).tolist() == [[1.0, 2.0], [3.0, 0.0]]
    assert packing.scatter(torch.tensor([1.0, 2.0, 3.0]), 3, -1.0).tolist() == [[1.0, 2.0, -1.0], [3.0, -1.0, -1.0]]


groups = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), max_size=4),
        st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(groups)
def test_a9_rows_are_exactly_the_trained_tokens(specs):
    made = [reply_group(prefix, *replies) for prefix, replies in specs]
    packing = pack(made)
    assert len(packing.rows) == sum(group.trained for group in made)
    expected = [token for prefix, replies in specs for reply in replies for j, token in enumerate(reply) if j or prefix]
    assert packing.targets.tolist() == expected
    # every query belongs to exactly one segment and sees itself
    covered = [i for s in packing.segments for i in range(s.start, s.stop)]
    assert sorted(covered) == list(range(len(packing.ids)))
    assert all(s.keys[-1] == (s.start, s.stop) for s in packing.segments)


def seen_by(packing):
    """Of every token, the tokens that it sees."""
    return {
        i: [k for a, b in s.keys[:-1] for k in range(a, b)] + list(range(s.start, i + 1))
        for s in packing.segments
        for i in range(s.start, s.stop)
    }


def check_blocks(table, expected):
    """That query i of the table sees the tokens `expected[i]`."""
    offset, seen = 0, {}
    keys_of = table.keys.split([block.keys for block in table.blocks])
    for block, flat in zip(table.blocks, keys_of, strict=True):
        keys = flat.view(block.segments, -1)
        wide = block.queries // block.segments
        for i in range(block.segments):
            for q in range(wide):
                shown = keys[i, : q + 1] if block.mask is None else keys[i][block.mask[i, 0, q]]
                seen[offset + i * wide + q] = shown.tolist()
        offset += block.queries
    assert {i: seen[int(table.place[i])] for i in expected} == expected
    assert table.queries[table.place].tolist() == list(expected), "a position's output is that of its own query"


@given(groups)
def test_blocks_let_every_query_see_its_keys_and_no_others(specs):
    packing = pack([reply_group(prefix, *replies) for prefix, replies in specs], rows="last")
    check_blocks(packing.attention.table, seen_by(packing))


@given(groups, st.sampled_from(["targets", "last"]), st.randoms(use_true_random=False))
def test_the_last_layer_computes_the_tokens_that_are_read_and_they_see_what_they_saw(specs, rows, random):
    made = [
        Group(
            group.prefix, group.replies, tuple(tuple(random.random() < 0.6 for _ in reply) for reply in group.replies)
        )
        for group in (reply_group(prefix, *replies) for prefix, replies in specs)
    ]
    packing = pack(made, rows=rows)
    attention, places = packing.ending
    assert attention.at[places].tolist() == packing.rows.tolist()
    at, read = attention.at.tolist(), set(packing.rows.tolist())
    if not read:
        assert attention is packing.attention
        return
    for segment in packing.segments:
        inside = [i for i in at if segment.start <= i < segment.stop]
        wanted = [i for i in read if segment.start <= i < segment.stop]
        assert inside == (list(range(min(wanted), max(wanted) + 1)) if wanted else [])
    everything = seen_by(packing)
    check_blocks(attention.table, {place: everything[i] for place, i in enumerate(at)})


def test_the_last_layer_of_a_pair_by_hand():
    """Prompt at 0-2, replies at 3-4 and 5: of the prompt only its last token is read, by both replies."""
    packing = pack([reply_group((7, 7, 7), (8, 8, 8), (9, 9))])
    attention, places = packing.ending
    assert attention.at.tolist() == [2, 3, 4, 5]
    assert [(s.start, s.stop, s.keys) for s in attention.segments] == [
        (0, 1, ((0, 2), (2, 3))),
        (1, 3, ((0, 3), (3, 5))),
        (3, 4, ((0, 3), (5, 6))),
    ]
    assert places.tolist() == [0, 1, 2, 0, 3]
    document = pack([reply_group((), (1, 2, 3))])
    assert document.ending[0] is document.attention


def test_the_last_layer_of_one_token_that_is_read():
    packing = pack([Group((5, 6, 7), ((8, 9),), ((True, False),))])
    attention, places = packing.ending
    assert attention.at.tolist() == [2] and places.tolist() == [0]
    assert [(s.start, s.stop, s.keys) for s in attention.segments] == [(0, 1, ((0, 2), (2, 3)))]
    nothing = pack([Group((5, 6, 7), ((8, 9),), ((False, False),))])
    assert nothing.ending[0] is nothing.attention and len(nothing.ending[1]) == 0


def test_blocks_of_a_pair_by_hand():
    """Prompt at 0-2, replies at 3-4 and 5: alone, then both replies behind the prompt, the shorter one padded."""
    table = pack([reply_group((7, 7, 7), (8, 8, 8), (9, 9))]).attention.table
    alone, replies = table.blocks
    assert (alone.segments, alone.queries, alone.keys, alone.mask, alone.bias) == (1, 3, 3, None, None)
    assert (replies.segments, replies.queries, replies.keys) == (2, 4, 10)
    assert table.queries.tolist() == [0, 1, 2, 5, 0, 3, 4] and table.place.tolist() == [0, 1, 2, 5, 6, 3]
    assert table.keys.tolist() == [0, 1, 2, 0, 1, 2, 5, 0, 0, 1, 2, 3, 4]
    assert replies.mask.int().tolist() == [
        [[[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]],
        [[[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]],
    ]
    assert torch.equal(replies.bias, torch.where(replies.mask, 0.0, -torch.inf))


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5), st.integers(0, 4))
def test_f3_every_epoch_sees_every_item_exactly_once(count, batch, seed, epoch):
    per = steps_per_epoch(count, batch)
    seen = [i for step in range(epoch * per, (epoch + 1) * per) for i in batch_indices(step, count, batch, seed)]
    assert sorted(seen) == list(range(count))


def test_f1_the_order_is_a_function_of_seed_and_step_alone():
    """F1: nothing carried from step to step, so a resume at the first, middle or last step of an epoch is exact."""
    forward = [batch_indices(step, 10, 4, 3) for step in range(9)]
    backward = [batch_indices(step, 10, 4, 3) for step in reversed(range(9))]
    assert forward == backward[::-1]
    assert forward[0:3] != forward[3:6]  # a fresh order each epoch
    assert [len(batch) for batch in forward[:3]] == [4, 4, 2]
    assert batch_indices(0, 10, 4, 4) != forward[0]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 20), st.integers(0, 3))
def test_f3_token_batches_see_every_item_exactly_once_and_keep_their_budget(lengths, budget, seed):
    at = token_batches(lengths, budget, seed)
    seen, step = [], 0
    while len(seen) < 2 * len(lengths):
        batch = at(step)
        assert sum(lengths[i] for i in batch) <= budget or len(batch) == 1
        seen += batch
        step += 1
    assert sorted(seen[: len(lengths)]) == sorted(seen[len(lengths) :]) == list(range(len(lengths)))
    assert token_batches(lengths, budget, seed)(step - 1) == batch  # any step first: the same batch


def test_cut_by_tokens_keeps_order_and_budget():
    assert cut_by_tokens([3, 3, 5, 9, 1], lambda n: n, 6) == [[3, 3], [5], [9], [1]]
    assert cut_by_tokens([2, 2, 2, 2], lambda n: n, 6) == [[2, 2, 2], [2]]
    assert cut_by_tokens([0, 3], lambda n: n, 6) == [[0, 3]]
    assert cut_by_tokens([], lambda n: n, 6) == []


def test_c22_a_prompt_set_smaller_than_a_batch_is_a_batch():
    assert sorted(batch_indices(0, 3, 256, 0)) == [0, 1, 2]
    assert sorted(batch_indices(7, 3, 256, 0)) == [0, 1, 2]


def test_length_mask_and_packing():
    assert length_mask([2, 0], 3).tolist() == [[True, True, False], [False] * 3]
    assert pack_replies([[1.0, 2.0], []], 3).tolist() == [[1.0, 2.0, 0.0], [0.0] * 3]
    assert pack_replies(iter([[1.0], [2.0, 3.0]]), 2).tolist() == [[1.0, 0.0], [2.0, 3.0]]


@pytest.mark.parametrize("lengths", [[1], [4, 4], [1, 60, 2, 59, 30]])
def test_padding_costs_little(lengths):
    """Segments of like size are padded together: the work stays near the exact one."""
    packing = pack([reply_group((), tuple(range(n))) for n in lengths], rows="last")
    blocks = packing.attention.table.blocks
    padded = sum(block.queries * block.keys // block.segments for block in blocks)
    assert padded <= 1.25 * sum(n * n for n in lengths) + 4096 * len(blocks)


def test_segments_of_one_size_are_one_block_wherever_they_lie():
    packing = pack([reply_group((), tuple(range(10))) for _ in range(100)], rows="last")
    (block,) = packing.attention.table.blocks
    assert (block.segments, block.queries, block.keys) == (100, 1000, 1000)


@pytest.mark.parametrize(("longer", "blocks"), [(110, 1), (111, 2)])
def test_segments_are_padded_together_while_that_costs_a_quarter_more_and_small_change(longer, blocks):
    """64 and 110: 2 · 110² = 24200 ≤ 1.25 (64² + 110²) + 4096 = 24341; with 111, 24642 are more than 24617."""
    packing = pack([reply_group((), range(n)) for n in (longer, 64)], rows="last")
    assert len(packing.attention.table.blocks) == blocks
    table = attention_table(packing.segments, 64 + longer, torch.device("cpu"), waste=3.0)
    assert len(table.blocks) == 1


@pytest.mark.parametrize("seed", range(20))
def test_an_attention_table_shows_each_query_what_its_segment_sees(seed):
    """Prompts of any length, some with replies of any length behind them, cut at any place: by counting."""
    dice = random.Random(seed)
    segments, sees, at = [], [], 0
    for _ in range(dice.randint(1, 30)):
        prompt = (at, at + dice.choice((1, 2, dice.randint(1, 40))))
        segments.append(Segment(*prompt, (prompt,)))
        sees += [range(at, query + 1) for query in range(*prompt)]
        at = prompt[1]
        for _ in range(dice.choice((0, 1, 4))):
            reply = (at, at + dice.randint(1, 12))
            segments.append(Segment(*reply, (prompt, reply)))
            sees += [[*range(*prompt), *range(at, query + 1)] for query in range(*reply)]
            at = reply[1]
    table = attention_table(dice.sample(segments, len(segments)), at, torch.device("cpu"))
    shown = []  # by the place of a query in the blocks, behind each other
    keys = iter(table.keys.tolist())
    for block in table.blocks:
        rows = [[next(keys) for _ in range(block.keys // block.segments)] for _ in range(block.segments)]
        for number, row in enumerate(rows):
            for query in range(block.queries // block.segments):
                causal = [place <= query for place in range(len(row))]
                mask = causal if block.mask is None else block.mask[number, 0, query].tolist()
                shown.append([key for key, seen in zip(row, mask, strict=True) if seen])
    assert len(shown) == len(table.queries)
    for query, place in enumerate(table.place.tolist()):
        assert table.queries[place] == query
        assert shown[place] == list(sees[query])
