"""Captured steps by a stand-in that records on a CPU; the graphs themselves on a GPU."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from accord.engine.decode import cuda_graphs, sampler
from accord.engine.decode.cuda_graphs import CudaGraphs, places, rounded
from accord.engine.decode.decoder import Decoder, agrees
from tests.engine.test_decoder import PROMPTS, SETTINGS, make


class Recorder:
    """Repeats recorded work into one tensor, as a graph does, and counts."""

    def __init__(self):
        self.recorded, self.replayed = 0, 0

    def record(self, work):
        self.recorded += 1
        out = work().clone()  # a capture computes nothing: whoever reads this reads an old step
        out.fill_(float("nan"))

        def again():
            self.replayed += 1
            return out.copy_(work())

        return again


@pytest.mark.parametrize(
    ("reach", "expected"), [((0, 0), (0, 0)), ((1, 3), (1, 64)), ((5, 65), (8, 128)), ((9, 130), (12, 200))]
)
def test_shapes_are_rounded_up_to_a_few(reach, expected):
    assert rounded(reach, slots=12, capacity=200) == expected


def test_live_rows_stand_at_the_front_of_their_pool():
    assert places([2, 0, 1], [(4, 64), (0, 0), (2, 64)]).tolist() == [0, 1, 4]


@pytest.mark.parametrize("cache_tokens", [150, 65536])
def test_replayed_steps_draw_what_plain_steps_draw(monkeypatch, cache_tokens):
    """Rows that leave and enter, in lanes; every shape runs plainly once, is recorded once, and is then replayed."""
    model = make("qwen3")
    expected = sampler.sample(model, PROMPTS, SETTINGS, cache_tokens=cache_tokens)
    recorder, made = Recorder(), []

    def capture(decoder):
        made.append(CudaGraphs(decoder, recorder.record))
        return made[-1]

    monkeypatch.setattr(sampler, "captures", lambda model: True)
    monkeypatch.setattr(sampler, "CudaGraphs", capture)
    found = sampler.sample(model, PROMPTS, SETTINGS, cache_tokens=cache_tokens)
    assert [r.ids for r in found] == [r.ids for r in expected]
    drawn, wanted = ([p for r in rollouts for p in r.logprobs] for rollouts in (found, expected))
    assert np.allclose(drawn, wanted, atol=1e-5)
    assert recorder.recorded == sum(work is not None for work in made[0].known.values())
    assert recorder.replayed > recorder.recorded >= 1


def test_rows_that_are_not_live_are_written_where_nothing_is():
    model = make("llama")
    decoder = Decoder(model, [(8, 12)])
    with torch.no_grad():
        decoder.admit(0, [(1, 2, 3), (4, 5), (6,)], 1)
        (pool,) = decoder.pools
        before = pool.cache[:, :, :3].clone()
        logits = decoder.forward(torch.tensor([7, 8, 9, 0]), [(4, 12)])
        assert torch.equal(pool.cache[:, :, 0, :, :3], before[:, :, 0, :, :3])
        assert logits.isfinite().all()
        assert pool.cache[:, :, 3, :, 1:].abs().sum() == 0 and pool.cache[:, :, 4:].abs().sum() == 0


def test_what_does_not_agree_is_not_captured():
    model = make("llama")
    assert agrees(model, lambda decoder: CudaGraphs(decoder, Recorder().record))

    def stale(work):
        out = work().clone()
        return lambda: out

    def refused(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    for record in (stale, refused):
        assert not agrees(model, lambda decoder, record=record: CudaGraphs(decoder, record))
    assert not cuda_graphs.captures(model)  # a CPU has no graphs


def test_graphs_share_a_pool_and_a_replay_gives_the_tensor_that_was_captured(monkeypatch):
    """The driver's calls by stand-ins; whether they compute anything is seen on a GPU alone."""
    replayed, captured = [], []

    class Graph:
        def replay(self):
            replayed.append(self)

    @contextmanager
    def graph(what, pool):
        yield
        captured.append((what, pool))

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    record = CudaGraphs(Decoder(make("llama"), [(3, 8), (2, 4)])).record
    outs = [torch.zeros(1), torch.ones(1)]
    first, second = (record(lambda out=out: out) for out in outs)
    assert [pool for _, pool in captured] == ["pool", "pool"] and replayed == []
    assert second() is outs[1] and first() is outs[0]
    assert replayed == [captured[1][0], captured[0][0]] and captured[0][0] is not captured[1][0]


def test_a_step_is_run_recorded_and_then_replayed_with_the_ids_of_its_rows():
    """Rows of two pools, rounded up; what is recorded reads the ids where they are copied."""
    steps = []
    reaches = [(3, 5), (1, 9)]
    pools = [
        SimpleNamespace(slots=8, capacity=70, live=3, reach=reaches[0]),
        SimpleNamespace(slots=2, capacity=200, live=1, reach=reaches[1]),
    ]

    def forward(ids, reaches):
        steps.append((ids.tolist(), reaches))
        return ids.clone().unsqueeze(1) * 10

    decoder = SimpleNamespace(pools=pools, embedding=torch.zeros(1), forward=forward)
    recorded = []
    graphs = CudaGraphs(decoder, lambda work: recorded.append(work) or work)
    assert graphs.ids.tolist() == [0] * 10
    for number in range(3):
        ids = torch.tensor([5, 6, 7, 8]) + number
        assert graphs(ids).flatten().tolist() == (10 * ids).tolist()
        assert len(recorded) == min(1, number)
    assert steps == [([5 + k, 6 + k, 7 + k, 0, 8 + k], ((4, 64), (1, 64))) for k in range(3)]
    pools[1].live, pools[1].reach = 0, (0, 0)
    graphs(torch.tensor([1, 2, 3]))
    assert steps[-1] == ([1, 2, 3, 0], ((4, 64), (0, 0))) and len(recorded) == 1


def test_what_a_gpu_captures_is_tried_and_what_is_not_is_said(monkeypatch):
    model = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda"))]))
    asked = []
    monkeypatch.setattr(cuda_graphs, "bare", lambda model: model)
    monkeypatch.setattr(cuda_graphs, "tried", lambda *given: asked.append(given) or True)
    assert cuda_graphs.captures(model) is True
    note = "decoding steps of SimpleNamespace are not captured; they run one kernel after another"
    assert asked == [(model, CudaGraphs, note)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_graphs_agree_on_this_gpu(name):
    model = make(name).cuda()
    assert cuda_graphs.captures(model)
    found = sampler.sample(model, PROMPTS, SETTINGS)
    expected = sampler.sample(make(name), PROMPTS, SETTINGS)
    drawn, wanted = ([p for r in rollouts for p in r.logprobs] for rollouts in (found, expected))
    assert [r.ids for r in found] == [r.ids for r in expected] and np.allclose(drawn, wanted, atol=1e-4)
