"""Steps in C against those by torch's operations: all layers, shapes, rows that come and go, and no compiler."""

import ctypes
import subprocess

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from accord.models import native, sampling
from accord.models.decoder import Decoder, agrees
from accord.models.native import Native, kernel, serves
from tests.models.test_decoder import ARCHITECTURES, COMMON, PROMPTS, SETTINGS, make

if kernel() is None:
    pytest.skip("needs a C compiler", allow_module_level=True)

LEAN = [name for name, (*_, lean) in ARCHITECTURES.items() if lean]


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A kernel that was neither loaded nor built, and forgotten again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernel.cache_clear()
    yield tmp_path / "cache" / "accord"
    kernel.cache_clear()


def pair(model, pools=((40, 32),)):
    """A decoder with native steps and one without."""
    ours, theirs = (Decoder(model, list(pools)) for _ in range(2))
    ours.shortcut = Native(ours)
    return ours, theirs


def wide(**settings):
    """A Llama whose sizes fill neither vectors nor panels, larger than one of each."""
    sizes = {"vocab_size": 131, "hidden_size": 100, "intermediate_size": 77, "head_dim": 70}
    config = transformers.LlamaConfig(**{**COMMON, **sizes, **settings})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="accord").eval()


def near(ours, theirs):
    return torch.allclose(ours.log_softmax(-1), theirs.log_softmax(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LEAN)
@torch.no_grad()
def test_native_steps_are_plain_steps(name):
    """Two pools, rows of different lengths, rows that leave: logits and what is written into the cache."""
    model = make(name)
    assert serves(model)
    decoders = pair(model, [(4, 20), (3, 12)])
    for decoder in decoders:
        decoder.admit(0, PROMPTS[:2], 2)
        decoder.admit(1, [PROMPTS[4]], 3)
    generator = torch.Generator().manual_seed(1)
    for live in (7, 7, 7, 6, 6, 4, 4):
        ids = torch.randint(0, 40, (live,), generator=generator)
        ours, theirs = (decoder.step(ids) for decoder in decoders)
        assert ours.dtype == torch.float32 and ours.shape == (live, 40) and near(ours, theirs)
        for decoder in decoders:
            long, short = decoder.pools
            if long.sizes[0] == 11:
                long.keep(np.array([False, True, True, True]))
            if short.sizes[0] == 7:
                short.keep(np.array([False, True, False]))
    for own, other in zip(*(decoder.pools for decoder in decoders), strict=True):
        assert torch.allclose(own.cache, other.cache, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_key_value_heads": 4}, {"num_key_value_heads": 1, "tie_word_embeddings": True}, {"head_dim": 144}],
    ids=str,
)
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 21])
@torch.no_grad()
def test_sizes_need_fill_no_vector_and_rows_no_tile(settings, rows):
    decoders = pair(wide(**settings))
    prompts = [range(1, 2 + k % 11) for k in range(rows)]
    ids = torch.arange(rows) * 6
    for decoder in decoders:
        decoder.admit(0, prompts, 1)
    for _ in range(20):  # from the first token to more than a vector of them
        ours, theirs = (decoder.step(ids) for decoder in decoders)
        assert near(ours, theirs)


@torch.no_grad()
def test_a_row_does_not_depend_on_its_company():
    """Bit for bit, which torch's products do not promise."""
    alone, beside = (pair(wide())[0] for _ in range(2))
    alone.admit(0, [(5, 6, 7)], 1)
    beside.admit(0, [(5, 6, 7)], 1)
    beside.admit(0, [(1, 2)], 12)
    beside.pools[0].cache[:, :, 0] = alone.pools[0].cache[:, :, 0]
    assert torch.equal(beside.step(torch.full((13,), 9))[:1], alone.step(torch.tensor([9])))


@torch.no_grad()
def test_many_rows_take_the_plain_road_and_both_share_a_cache(monkeypatch):
    model = make("qwen3")
    decoders = pair(model, [(12, 20)])
    plain = []
    forward = Decoder.forward
    monkeypatch.setattr(native, "ROWS", 8)
    monkeypatch.setattr(
        Decoder, "forward", lambda self, ids, *rest: plain.append((self, len(ids))) or forward(self, ids, *rest)
    )
    for decoder in decoders:
        decoder.admit(0, PROMPTS[:3], 3)
    going = np.array([True] * 8 + [False])
    for live, enter in ((9, 0), (9, -1), (8, 0), (8, 2), (10, 0)):
        ids = torch.arange(live)
        ours, theirs = (decoder.step(ids) for decoder in decoders)
        assert near(ours, theirs)
        for decoder in decoders:
            if enter < 0:
                decoder.pools[0].keep(going)
            elif enter:
                decoder.admit(0, [PROMPTS[5]], enter)
    assert [count for decoder, count in plain if decoder is decoders[0]] == [9, 9, 10]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    decoders[0].pools[0].keep(np.array([True] * 5 + [False] * 5))
    decoders[0].step(torch.arange(5))
    assert plain[-1] == (decoders[0], 5)


@torch.no_grad()
def test_what_lies_behind_a_row_is_not_read():
    decoders = pair(wide(), [(3, 24)])
    for decoder in decoders:
        decoder.admit(0, [range(1, 9), range(1, 4)], 1)
    pool = decoders[0].pools[0]
    for slot, length in enumerate(pool.lengths):
        pool.cache[:, :, slot, :, length:] = float("nan")
    for _ in range(12):
        ours, theirs = (decoder.step(torch.tensor([3, 4])) for decoder in decoders)
        assert near(ours, theirs)


@torch.no_grad()
def test_scores_of_any_size_and_weights_that_are_no_numbers():
    model = wide()
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.mul_(3000.0)
        layer.mlp.gate_proj.weight.mul_(3000.0)
    decoders = pair(model)
    for decoder in decoders:
        decoder.admit(0, [range(1, 9)], 1)
    ours, theirs = (decoder.step(torch.tensor([3])) for decoder in decoders)
    assert torch.allclose(ours, theirs, atol=1e-3)  # differences of scores of some thousand have fewer digits
    model.model.layers[1].self_attn.q_proj.weight[3, 5] = float("nan")  # reaches the logits through the softmax alone
    (ours, _) = pair(model)
    ours.admit(0, [(1, 2)], 1)
    assert ours.step(torch.tensor([3])).isnan().all()


@torch.no_grad()
def test_a_row_without_room_is_refused():
    ours, _ = pair(make("llama"), [(2, 4)])
    ours.admit(0, [(1, 2, 3)], 1)
    ours.step(torch.tensor([3]))
    before = ours.pools[0].cache.clone()
    with pytest.raises(IndexError, match="live row 0"):
        ours.step(torch.tensor([3]))
    assert torch.equal(ours.pools[0].cache, before)


@pytest.mark.parametrize("name", LEAN)
@pytest.mark.parametrize("micro_tokens", [150, 65536])
def test_the_same_replies_are_drawn(monkeypatch, name, micro_tokens):
    model, steps = make(name), []
    step = Native.__call__
    monkeypatch.setattr(Native, "__call__", lambda self, ids: steps.append(len(ids)) or step(self, ids))
    ours = sampling.sample(model, PROMPTS, **SETTINGS, micro_tokens=micro_tokens)
    assert len(steps) > 12
    monkeypatch.setattr(sampling, "serves", lambda model: False)
    theirs = sampling.sample(model, PROMPTS, **SETTINGS, micro_tokens=micro_tokens)
    assert [r.ids for r in ours] == [r.ids for r in theirs]
    drawn, wanted = ([p for r in rollouts for p in r.logprobs] for rollouts in (ours, theirs))
    assert np.allclose(drawn, wanted, rtol=0, atol=1e-5)


def test_what_the_kernel_does_not_compute_is_left_alone(monkeypatch):
    assert serves(make("llama"))
    other = make("llama")
    other.config.hidden_act = "gelu"
    assert not serves(other) and not serves(make("llama").bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not serves(make("llama"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert not serves(make("llama"))


def test_a_kernel_that_disagrees_is_not_used(monkeypatch, capsys):
    model, step = make("llama"), Native.__call__
    assert agrees(model, Native)
    monkeypatch.setattr(Native, "__call__", lambda self, ids: step(self, ids) * 1.01)
    assert not agrees(model, Native)
    assert not serves(model) and not serves(model)
    assert capsys.readouterr().out.count("note: native decoding steps of LlamaForCausalLM disagree") == 1
    assert sampling.shortcut(model, Decoder(model, [(1, 4)])) is None


@torch.no_grad()
def test_a_decoder_and_its_cache_go_when_they_are_not_needed():
    import gc
    import weakref

    ours, _ = pair(make("llama"))
    ours.admit(0, [(1, 2)], 1)
    ours.step(torch.tensor([3]))
    gone = weakref.ref(ours)
    gc.disable()
    try:
        del ours
        assert gone() is None
    finally:
        gc.enable()


def test_the_kernel_is_built_once(fresh, monkeypatch):
    assert kernel() is not None
    (built,) = fresh.iterdir()
    assert built.suffix == ".so"
    kernel.cache_clear()
    monkeypatch.setattr(native, "_build", None)
    assert kernel() is not None


def test_other_instructions_have_a_kernel_of_their_own(fresh, monkeypatch):
    assert kernel() is not None
    kernel.cache_clear()
    run = native._run
    monkeypatch.setattr(native, "_run", lambda command: run(command) + "#define __OTHER__ 1\n")
    assert kernel() is not None
    assert len(list(fresh.iterdir())) == 2


def test_where_nothing_can_be_kept_the_kernel_is_built_for_this_process(fresh):
    fresh.parent.write_text("a file where the folder should be")
    assert isinstance(kernel(), ctypes.CDLL)
    assert serves(make("llama"))


@pytest.mark.parametrize("compiler", ["none", "fails", "makes nothing"])
def test_without_a_kernel_a_note_is_said_once_and_torch_draws_the_same(fresh, monkeypatch, capsys, compiler):
    expected = sampling.sample(make("llama"), PROMPTS, **SETTINGS)
    kernel.cache_clear()
    [file.unlink() for file in fresh.iterdir()]
    run = native._run
    if compiler == "none":
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(native.shutil, "which", lambda name: None)
    if compiler == "fails":
        monkeypatch.setattr(native, "FLAGS", ("-fno-such-flag",))
    if compiler == "makes nothing":
        monkeypatch.setattr(native, "_run", lambda command: "" if "-o" in command else run(command))
    capsys.readouterr()
    found = [sampling.sample(make("llama"), PROMPTS, **SETTINGS) for _ in range(2)]
    said = capsys.readouterr().out
    assert said.count("note: decoding steps are computed by torch's operations; no C kernel: ") == 1
    assert {"none": "no C compiler", "fails": "fno-such-flag", "makes nothing": "No such file"}[compiler] in said
    assert [r.ids for r in found[0]] == [r.ids for r in found[1]] == [r.ids for r in expected]
    assert kernel() is None


def test_the_source_compiles_without_a_warning(tmp_path):
    command = [*native._compiler(), *native.FLAGS, "-Wall", "-Wextra", "-Werror", "-shared"]
    done = subprocess.run([*command, "-o", str(tmp_path / "a.so"), str(native.SOURCE), "-lm"], capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("-march=native" not in native.FLAGS, reason="another processor")
@torch.no_grad()
def test_narrow_vectors_compute_the_same(monkeypatch, fresh):
    """As on processors without AVX-512, whose vectors and tiles are half as wide."""
    monkeypatch.setattr(native, "FLAGS", tuple(f.replace("-march=native", "-march=x86-64") for f in native.FLAGS))
    assert kernel().panel() == 16
    decoders = pair(wide())
    for decoder in decoders:
        decoder.admit(0, [range(1, 9), range(1, 4)], 5)
    for _ in range(12):
        ours, theirs = (decoder.step(torch.arange(10)) for decoder in decoders)
        assert near(ours, theirs)
