"""FlexAttention's block mask against one dense mask; uncompiled and without gradients on a CPU, in full on a GPU."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from accord.engine.forward import flex, plain
from accord.engine.forward.attention import explicit_attention
from accord.engine.packing import pack, reply_group

GROUPS = [
    reply_group(range(150), range(140), range(1), range(140)),  # a reply of one token has no query
    reply_group((), range(6)),
    reply_group(range(4), range(5)),
    reply_group(range(2), range(2), range(3)),
]


def drawn(packing, attention):
    generator = torch.Generator().manual_seed(1)
    sizes = (len(attention.at), 4), (len(packing.ids), 2), (len(packing.ids), 2)
    return [torch.randn(*size, 16, generator=generator) for size in sizes]


def test_the_spans_by_hand():
    """Prompt at 0-2, replies at 3-4 (behind it: one text) and 5, a text of its own at 6-7."""
    packing = pack([reply_group((7, 7, 7), (8, 8, 8), (9, 9)), reply_group((), (5, 5, 5))])
    own, first, behind = flex.spans(packing.attention).tolist()
    assert own == [0, 0, 0, 0, 0, 5, 6, 6]
    assert first == [0] * 8 and behind == [0, 0, 0, 0, 0, 3, 0, 0]


@pytest.mark.parametrize("last", [False, True], ids=["every token", "the last layer"])
def test_every_pair_that_is_seen_lies_in_a_block_that_is_seen_and_no_other_block_is(last):
    packing = pack(GROUPS)
    asked = packing.ending[0] if last else packing.attention
    at = asked.at.tolist()
    counts = [-(-size // flex.BLOCK) for size in (len(at), len(packing.ids))]
    seen = np.zeros([count * flex.BLOCK for count in counts], dtype=bool)
    for segment in asked.segments:
        for query in range(segment.start, segment.stop):
            for start, stop in segment.keys:
                seen[query, start : min(stop, at[query] + 1)] = True
    blocks = seen.reshape(counts[0], flex.BLOCK, counts[1], flex.BLOCK).any(axis=(1, 3))
    assert np.array_equal(flex.blocks_seen(asked, len(packing.ids)), blocks)
    assert counts == ([3, 4] if last else [4, 4]) and (last or not blocks.all())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("last", [False, True], ids=["every token", "the last layer"])
def test_its_mask_is_the_dense_mask(scaling, last):
    packing = pack(GROUPS)
    asked = packing.ending[0] if last else packing.attention
    q, k, v = drawn(packing, asked)
    expected = plain.masked(asked, q if scaling is None else q * (scaling * 4), k, v)
    assert torch.allclose(flex.attend(asked, q, k, v, scaling=scaling), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_scores_are_capped():
    packing = pack([reply_group((), range(40))])
    q, k, v = (3 * t for t in drawn(packing, packing.attention))
    flat = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
    expected = explicit_attention(*flat, None, cap=2.0)[0].transpose(0, 1)
    assert torch.allclose(flex.attend(packing.attention, q, k, v, cap=2.0), expected, atol=1e-5)
    assert not torch.allclose(flex.attend(packing.attention, q, k, v), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "off", "same"),
    [
        (torch.float32, 0.0, True),
        (torch.float32, 2e-5, True),
        (torch.float32, 3e-4, False),
        (torch.bfloat16, 0.01, True),
        (torch.bfloat16, 0.1, False),
        (torch.float16, 0.01, True),
    ],
)
def test_a_kernel_agrees_within_what_its_type_rounds(dtype, off, same):
    """Of prompts longer than a block and replies, every token and those that a last layer asks for."""
    asked = []

    def attend(attention, query, key, value):
        asked.append((len(attention.at), len(key), query.shape[1:], key.shape[1:], query.dtype))
        return plain.masked(attention, query, key, value) * (1 + off)

    assert plain.agrees(attend, torch.device("cpu"), dtype, 8) is same
    heads = torch.Size([4, 8]), torch.Size([2, 8]), dtype
    assert asked == [(155, 155, *heads), (16, 155, *heads)][: len(asked)] and (not same or len(asked) == 2)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_kernel_with_another_gradient_does_not_agree(place):
    def attend(attention, *flat):
        flat = [2 * t - t.detach() if i == place else t for i, t in enumerate(flat)]
        return plain.masked(attention, *flat)

    assert not plain.agrees(attend, torch.device("cpu"), torch.float32, 8)


def test_a_kernel_that_is_wrong_where_queries_are_fewer_than_keys_does_not_agree():
    def attend(attention, *flat):
        return plain.masked(attention, *flat) * (1.5 if len(attention.at) < len(flat[1]) else 1.0)

    assert not plain.agrees(attend, torch.device("cpu"), torch.float32, 8)


@pytest.mark.parametrize("failure", [ImportError, AttributeError, RuntimeError, TypeError])
def test_a_kernel_that_cannot_be_run_does_not_agree(failure):
    def attend(*_):
        raise failure("here")

    with torch.no_grad():
        assert not plain.agrees(attend, torch.device("cpu"), torch.float32, 8)


def test_what_it_is_compared_by(monkeypatch):
    asked = []
    monkeypatch.setattr(plain, "agrees", lambda *given: asked.append(given) or True)
    flex.agrees.cache_clear()
    assert flex.agrees(torch.device("cpu"), torch.float32, 24)
    assert asked == [(flex.attend, torch.device("cpu"), torch.float32, 24)]
    flex.agrees.cache_clear()


def test_a_cpu_has_its_own_way():
    assert not flex.serves(torch.zeros(1, 1, 16))
    assert not flex.agrees(torch.device("cpu"), torch.float32, 16)  # no gradients there


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_agrees_on_this_gpu(dtype):
    assert flex.agrees(torch.device("cuda"), dtype, 64)


def test_it_serves_where_it_is_asked_for(monkeypatch):
    query = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32, shape=(3, 4, 16))
    monkeypatch.setattr(flex, "agrees", lambda *_: True)
    monkeypatch.setattr(flex, "computed_in", lambda _: torch.float32)
    monkeypatch.delenv("ACCORD_FLEX", raising=False)
    assert not flex.serves(query)
    monkeypatch.setenv("ACCORD_FLEX", "1")
    assert flex.serves(query)
