"""The two calls of prefix sharing against one dense mask, by a stand-in for the kernel; the kernel itself on a GPU."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from accord.engine.forward import attention, plain, varlen
from accord.engine.packing import pack, reply_group, varlen_calls

GROUPS = [
    reply_group(range(5), range(3), range(1), range(4)),  # a reply of one token has no query
    reply_group((), range(6)),
    reply_group(range(4), range(5)),
    reply_group(range(2), range(2), range(3)),
]


def stand_in(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=None, window_size=None, enable_gqa=False):
    """What torch 2.13 documents: causal attention text by text, aligned at the end."""
    assert window_size == (-1, 0) and cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert enable_gqa or query.shape[1] == key.shape[1]
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], dim=1) for t in (key, value))
    sizes = [t.diff().tolist() for t in (cu_seq_q, cu_seq_k)]
    assert (max(sizes[0]), max(sizes[1])) == (max_q, max_k)
    out = []
    for q, k, v in zip(query.split(sizes[0]), key.split(sizes[1]), value.split(sizes[1]), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        seen = torch.ones(len(q), len(k), dtype=torch.bool).tril(len(k) - len(q))
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v))
    return torch.cat(out)


def of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):
    """Torch 2.10: causal by its own flag, no scale, no grouped heads."""
    assert is_causal
    return stand_in(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size=(-1, 0))


@pytest.fixture
def kernel(monkeypatch):
    def install(function):
        monkeypatch.setattr(varlen, "_kernel", lambda: varlen.adapted(function))

    return install


def drawn(packing, attention):
    generator = torch.Generator().manual_seed(1)
    sizes = [(len(attention.at), 4, 8), (len(packing.ids), 2, 8), (len(packing.ids), 2, 8)]
    return [torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]


def test_the_tables_by_hand():
    """Prompt at 0-2, replies at 3-4 and 5: the prompt attends to itself, each reply to the prompt and to itself."""
    packing = pack([reply_group((7, 7, 7), (8, 8, 8), (9, 9))])
    calls, place = varlen_calls(packing.segments, len(packing.ids), torch.device("cpu"))
    assert [call.queries.tolist() for call in calls] == [[0, 1, 2], [3, 4, 5]]
    assert [call.keys.tolist() for call in calls] == [[0, 1, 2], [0, 1, 2, 3, 4, 0, 1, 2, 5]]
    assert [call.query_starts.tolist() for call in calls] == [[0, 3], [0, 2, 3]]
    assert [call.key_starts.tolist() for call in calls] == [[0, 3], [0, 5, 9]]
    assert [(call.longest_query, call.longest_key) for call in calls] == [(3, 3), (2, 5)]
    assert place.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("groups", "place"),
    [
        ([reply_group((), (5, 6, 7)), reply_group((5,), (6, 7))], [0, 1, 2, 3]),
        ([reply_group((7, 7), (8, 8), (9, 9)), reply_group((), (5, 5))], [0, 1, 3, 4, 2]),
    ],
)
def test_a_token_stands_where_its_call_puts_it(groups, place):
    """Texts alone are one call; behind them come the replies to a prompt."""
    packing = pack(groups)
    calls, found = varlen_calls(packing.segments, len(packing.ids), torch.device("cpu"))
    assert found.tolist() == place and torch.cat([call.queries for call in calls])[found].tolist() == [
        *range(len(place))
    ]


@pytest.mark.parametrize("function", [stand_in, of_2_10])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("last", [False, True], ids=["every token", "the last layer"])
def test_two_calls_are_one_dense_mask(kernel, function, scaling, last):
    """Outputs and gradients, grouped heads included; and the blocks that a CPU computes are the same."""
    kernel(function)
    packing = pack(GROUPS)
    asked = packing.ending[0] if last else packing.attention
    assert (len(asked.at) < len(packing.ids)) is last
    q, k, v = drawn(packing, asked)
    weight = torch.randn(len(asked.at), 4, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    # masked() has no scale of its own
    expected = plain.masked(asked, q if scaling is None else q * (scaling * 8**0.5), k, v)
    ways = varlen.attend, attention.attend_packed
    results = [attend(asked, q, k, v, scaling=scaling) for attend in ways]
    wanted = torch.autograd.grad((expected * weight).sum(), (q, k, v))
    for found in results:
        assert torch.allclose(found.double(), expected.double(), atol=1e-5)
        for a, b in zip(torch.autograd.grad((found * weight).sum(), (q, k, v)), wanted, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_it_is_used_where_it_agrees_and_nowhere_else(kernel):
    varlen.agrees.cache_clear()
    kernel(stand_in)
    with torch.no_grad():  # whoever asks first
        assert varlen.agrees(torch.device("cpu"))
    varlen.agrees.cache_clear()

    def aligned_at_the_start(query, key, value, starts_q, starts_k, max_q, max_k, *, window_size, enable_gqa=False):
        lengths = starts_q.diff()
        kept = torch.cat([a + torch.arange(n) for a, n in zip(starts_k[:-1], lengths, strict=True)])
        options = {"window_size": window_size, "enable_gqa": enable_gqa}
        return stand_in(query, key[kept], value[kept], starts_q, starts_q, max_q, max_q, **options)

    kernel(aligned_at_the_start)
    assert not varlen.agrees(torch.device("cpu"))
    varlen.agrees.cache_clear()
    assert not varlen.serves(torch.zeros(1, 1, 8, dtype=torch.bfloat16))  # a CPU has no such kernel


@pytest.mark.parametrize(
    ("device", "dtype", "size", "agreed", "serves"),
    [
        ("cuda", torch.bfloat16, 64, True, True),
        ("cuda", torch.float16, 8, True, True),
        ("cuda", torch.float16, 256, True, True),
        ("cuda", torch.float16, 264, True, False),
        ("cuda", torch.float16, 12, True, False),
        ("cuda", torch.float32, 64, True, False),
        ("cuda", torch.bfloat16, 64, False, False),
        ("cpu", torch.bfloat16, 64, True, False),
    ],
)
def test_it_serves_heads_of_its_sizes_in_low_precision_on_a_gpu(monkeypatch, device, dtype, size, agreed, serves):
    monkeypatch.setattr(varlen, "agrees", lambda device: agreed)
    monkeypatch.setattr(varlen, "computed_in", lambda query: query.dtype)
    query = SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(3, 7, size))
    assert varlen.serves(query) is serves


def test_what_it_is_compared_by(monkeypatch):
    """In bf16, with heads of 32."""
    varlen.agrees.cache_clear()
    asked = []
    monkeypatch.setattr(plain, "agrees", lambda *given: asked.append(given) or True)
    assert varlen.agrees(torch.device("cpu"))
    assert asked == [(varlen.attend, torch.device("cpu"), torch.bfloat16, 32)]
    varlen.agrees.cache_clear()


def test_arguments_that_are_not_known_are_refused():
    with pytest.raises(TypeError, match="window_size"):
        varlen.adapted(lambda query, key, value: query)


def test_the_kernel_of_this_torch_is_known():
    from torch.nn.attention.varlen import varlen_attn

    varlen.adapted(varlen_attn)
    assert list(inspect.signature(varlen_attn).parameters)[:7] == list(inspect.signature(stand_in).parameters)[:7]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_kernel_agrees_on_this_gpu():
    assert varlen.agrees(torch.device("cuda"))
