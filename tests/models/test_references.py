"""What a reference is asked, and the sums of whole replies: computed in parts, kept in a file, read again."""

import contextlib
import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn, tensor

from accord.engine.packing import pack, reply_group
from accord.models import reference as references
from accord.models.reference import Reference, ReplyReference, ReplyStore, entry_names, kept_sums, reply_sums
from accord.training.distributed import World

CPU = torch.device("cpu")
ONE = World(0, 1, CPU)
GROUPS = [reply_group((5, 6), (7,), (8, 9, 10)), reply_group((5,), (11, 12)), reply_group((6,), (3,), (4,), (9, 1))]
SUMS = [[-0.7, -2.7], [-2.3], [-0.3, -0.4, -1.0]]


def tenths(packing):
    """A tenth of a token's id is what it costs."""
    return -0.1 * packing.targets.float()


def lists(tensors):
    return [pytest.approx(one.tolist()) for one in tensors]


class Adapted(nn.Module):
    on = True

    @contextlib.contextmanager
    def disable_adapter(self):
        self.on = False
        yield
        self.on = True


@pytest.fixture
def asked(monkeypatch):
    """What the engine is asked for: model, temperature, and whether the policy's adapter is on and gradients are."""
    seen, adapted = [], Adapted()

    def told(name, answer):
        def call(model, *_, temperature=None):
            seen.append((name, model, temperature, adapted.on, torch.is_grad_enabled()))
            return answer

        return call

    monkeypatch.setattr(references, "token_logprobs", told("logprobs", "logprobs"))
    monkeypatch.setattr(references, "hidden_states", told("hidden", 2.0))
    monkeypatch.setattr(references, "logits_head", told("head", lambda hidden: 3 * hidden))
    return seen, adapted


def test_a_reference_is_the_policy_without_its_adapter_or_a_model_of_its_own(asked):
    seen, policy = asked
    separate = nn.Linear(1, 1)
    for model, reference in ((policy, Reference(policy, None)), (separate, Reference(policy, separate))):
        own = model is separate
        assert reference.separate is (separate if own else None)
        assert reference.token_logprobs("packing", temperature=0.7) == "logprobs"
        assert reference.token_logprobs("packing") == "logprobs"
        assert reference.logits("packing", temperature=0.7) == 6.0 and reference.logits("packing") == 6.0
        names = [("logprobs", 0.7), ("logprobs", 1.0), ("head", 0.7), ("hidden", None), ("head", 1.0), ("hidden", None)]
        assert seen == [(name, model, temperature, own, False) for name, temperature in names]
        assert policy.on
        seen.clear()


# Sums of whole replies


def test_sums_are_kept_or_computed_or_0():
    """Of the groups by number, in the order that they are asked for; each source has its way."""
    kept = ReplyReference([tensor(sums) for sums in SUMS], logprobs=tenths)
    packing = pack([GROUPS[2], GROUPS[0]])
    assert kept.sums([2, 0], packing).tolist() == pytest.approx(SUMS[2] + SUMS[0])
    assert lists(kept.of([2, 0], GROUPS, [], ONE)) == [SUMS[2], SUMS[0]]
    anew = ReplyReference(logprobs=lambda packing: tenths(packing).requires_grad_())
    found = anew.sums([9, 9], packing)
    assert found.tolist() == pytest.approx(SUMS[2] + SUMS[0]) and not found.requires_grad
    assert lists(anew.of([9, 9, 9], GROUPS, [[0, 1, 2]], ONE)) == SUMS
    none = ReplyReference()
    assert none.sums([2, 0], packing).tolist() == [0.0] * 5
    assert lists(none.of([9, 9, 9], GROUPS, [], ONE)) == [[0.0, 0.0], [0.0], [0.0, 0.0, 0.0]]


def test_sums_are_computed_in_parts_in_any_order():
    seen = []

    def logprobs(packing):
        assert not torch.is_grad_enabled()
        seen.append(packing.replies)
        return tenths(packing)

    assert lists(reply_sums(logprobs, GROUPS, [[2, 0], [1]], ONE)) == SUMS and seen == [5, 1]
    # what no part names has no sums
    assert lists(reply_sums(logprobs, GROUPS, [[1]], ONE)) == [[], SUMS[1], []]


def test_what_is_computed_for_the_other_ranks_sake_is_not_counted(monkeypatch):
    told = []

    def in_step(sharded, parts, filler):
        told.append(sharded)
        return [*((part, True) for part in parts), ([filler], False)]

    monkeypatch.setattr(references, "in_step", in_step)
    assert lists(reply_sums(tenths, GROUPS[1:2], [[0]], World(0, 1, CPU, sharded=True))) == [SUMS[1]] and told == [True]


def test_the_reference_follows_what_is_trained_alone():
    policy, frozen = nn.Linear(1, 1), nn.Linear(1, 1)
    for model, weight, bias in ((policy, 3.0, 2.0), (frozen, 1.0, 7.0)):
        model.weight.data.fill_(weight)
        model.bias.data.fill_(bias)
    policy.bias.requires_grad_(False)
    references.follow(frozen, policy, 0.75)
    assert (frozen.weight.item(), frozen.bias.item()) == (2.5, 7.0)
    assert (policy.weight.item(), policy.bias.item()) == (3.0, 2.0)


# What is kept


def test_the_hash_of_weights_is_of_names_types_shapes_and_bytes():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("b", tensor([1, -2], dtype=torch.int32))
            self.register_buffer("a", tensor([[1.5], [0.25]], dtype=torch.bfloat16).T)

    model = Model()
    digest = hashlib.sha256(b"a torch.bfloat16 (1, 2)\n\xc0\x3f\x80\x3e")
    digest.update(b"b torch.int32 (2,)\n\x01\x00\x00\x00\xfe\xff\xff\xff")
    assert references.weights_hash(model) == digest.hexdigest()


def test_an_entry_is_named_by_the_tokens_of_prompt_and_reply():
    ((first, second), (third,)) = entry_names(GROUPS[:2])
    for name, text in ((first, "(5, 6) (7,)"), (second, "(5, 6) (8, 9, 10)"), (third, "(5,) (11, 12)")):
        assert name == hashlib.sha256(text.encode()).digest()[:16]


def test_a_store_is_a_file_of_weights_and_precision_to_which_any_run_adds(tmp_path):
    store = ReplyStore(tmp_path, "weights", "bf16")
    assert store.key == hashlib.sha256(b'["weights", "bf16"]').hexdigest()[:32] and len(store.key) == 32
    assert store.file == tmp_path / f"{store.key}.safetensors" and store.read() == {}
    one, two, three = (bytes([k] * 15 + [7]) for k in (1, 2, 3))
    store.add({one: -1.5, two: -0.25})
    ReplyStore(tmp_path, "weights", "bf16").add({three: -4.0, one: -2.5})
    assert store.read() == {one: -2.5, two: -0.25, three: -4.0}
    assert ReplyStore(tmp_path, "weights", "f32").read() == {}
    tensors = load_file(store.file)
    assert tensors.keys() == {f"{store.key}.names", f"{store.key}.sums"} and list(tmp_path.iterdir()) == [store.file]
    assert tensors[f"{store.key}.names"].shape == (3, 16)


@pytest.mark.parametrize("shape", [(2, 15), (3, 16), (2, 17), (2,)])
def test_names_that_do_not_fit_their_sums_are_not_read(tmp_path, shape):
    store = ReplyStore(tmp_path, "weights", "f32")
    names = torch.zeros(shape, dtype=torch.uint8)
    save_file({f"{store.key}.names": names, f"{store.key}.sums": tensor([0.5, 0.25])}, store.file)
    assert store.read() == {}


def test_a_broken_file_or_one_of_another_key_is_not_read(tmp_path):
    store, other = ReplyStore(tmp_path, "weights", "f32"), ReplyStore(tmp_path, "others", "f32")
    other.add({b"n" * 16: 0.5})
    for content in (other.file.read_bytes(), b"", b"nothing"):
        store.file.write_bytes(content)
        assert store.read() == {}


class Ranks:
    """A world in which every rank has the same, and what it was given to gather."""

    def __init__(self, main, theirs=frozenset()):
        self.is_main, self.gathered, self.theirs = main, [], theirs

    def gather(self, value):
        self.gathered.append(value)
        return [value, set(self.theirs)] if isinstance(value, set) else [value]


def test_what_is_missing_is_computed_and_added_by_the_first_rank(tmp_path):
    store, calls = ReplyStore(tmp_path, "weights", "f32"), []
    first, second, third = entry_names(GROUPS)
    store.add({first[0]: -9.0, second[0]: -2.5, first[1]: -8.0, third[1]: -7.0})

    def compute(missing):
        calls.append(missing)
        return [tensor(sums) for sums in SUMS]

    # group 2 lacks two of its three; group 0 is whole, and here another rank asks for it
    for main in (False, True):
        world = Ranks(main, {0})
        found = kept_sums(store, GROUPS, world, compute)
        assert lists(found) == [SUMS[0], [-2.5], SUMS[2]] and calls.pop() == {0, 2}
        assert world.gathered == [{2}, None]
        assert len(store.read()) == (6 if main else 4)
    assert store.read() == pytest.approx(
        dict(zip([*first, *second, *third], [*SUMS[0], -2.5, *SUMS[2]], strict=True)), rel=1e-6
    )
    world = Ranks(True)
    assert lists(kept_sums(store, GROUPS, world, compute)) == [SUMS[0], [-2.5], SUMS[2]]
    assert calls == [] and world.gathered == [set()]


def test_a_store_survives_a_key_with_letters_of_any_kind(tmp_path):
    key = hashlib.sha256(json.dumps(["wörter", "f32"]).encode()).hexdigest()[:32]
    assert ReplyStore(tmp_path, "wörter", "f32").key == key
