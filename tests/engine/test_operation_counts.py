"""How much work a batch is: tokens through the trunk and rows through the head, exactly."""

import functools

import pytest
import torch

from accord.engine.forward import causal
from accord.engine.forward.attention import attend_packed
from accord.engine.forward.causal import packs, token_logprobs
from accord.engine.packing import pack, reply_group
from accord.models.policy import new_policy
from accord.models.scalar import values

PROMPT, REPLIES = (5, 6, 7, 8, 9), ((10, 11, 12), (13, 14), (15,), (16, 17, 18, 19))
# name: (groups, tokens through the trunk, tokens through its last layer, rows through the head)
LIKELIHOOD = {
    # 5 + 3 − 1: a reply's last token predicts nothing; in the last layer all but the first 4 of the prompt
    "sft": ([reply_group(PROMPT, REPLIES[0])], 7, 3, 3),
    # the prompt once: 5 + 2 + 1; its last token predicts the first of both replies
    "dpo pair": ([reply_group(PROMPT, *REPLIES[:2])], 8, 4, 5),
    # 5 + 2 + 1 + 0 + 3
    "rollouts of one prompt": ([reply_group(PROMPT, *REPLIES)], 11, 7, 10),
    "two prompts": ([reply_group(PROMPT, *REPLIES[:2]), reply_group(PROMPT[:2], REPLIES[3])], 13, 8, 9),
    # a document: its first token has nothing to be predicted from
    "document": ([reply_group((), PROMPT)], 4, 4, 4),
}


class Counted:
    """What goes through the first layer's keys and MLP, the last one's queries and MLP, and a scalar head."""

    def __init__(self, model):
        self.counts = {}
        first, *_, last = model.base_model.layers
        parts = {
            "keys": first.self_attn.k_proj,
            "tokens": first.mlp,
            "last keys": last.self_attn.k_proj,
            "last queries": last.self_attn.q_proj,
            "last": last.mlp,
        }
        if hasattr(model, "score"):
            parts["rows"] = model.score
        for name, part in parts.items():
            part.register_forward_pre_hook(functools.partial(self._count, name))

    def _count(self, name, module, inputs):
        self.counts[name] = self.counts.get(name, 0) + inputs[0].shape[:-1].numel()


def expected(tokens, last, rows):
    return {"keys": tokens, "tokens": tokens, "last keys": tokens, "last queries": last, "last": last, "rows": rows}


@pytest.mark.parametrize("name", LIKELIHOOD)
def test_log_probs_cost_what_is_read(name, tokenizer, nano, monkeypatch):
    model = new_policy(nano, tokenizer, max_length=64, seed=0)
    assert packs(model)
    counted = Counted(model)
    plain = causal.linear_logprobs
    monkeypatch.setattr(causal, "linear_logprobs", lambda h, *a: counted.counts.update(rows=len(h)) or plain(h, *a))
    groups, tokens, last, rows = LIKELIHOOD[name]
    assert len(token_logprobs(model, pack(groups))) == rows
    assert counted.counts == expected(tokens, last, rows)


@pytest.mark.parametrize(("replies", "tokens"), [(1, 8), (2, 10), (4, 15)])
def test_scores_cost_every_token_once_and_a_row_per_reply(replies, tokens, snapshots):
    from accord.models.loading import load_scalar

    model = load_scalar(str(snapshots / "reward"), role="preference")
    assert packs(model)
    counted = Counted(model)
    assert len(values(model, pack([reply_group(PROMPT, *REPLIES[:replies])], rows="last"))) == replies
    assert counted.counts == expected(tokens, replies, replies)


def test_a_plan_in_one_row_has_no_padding_and_its_attention_little():
    """Segments of like size are padded together: at most a quarter more than the exact work, beyond small change."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 200, (60,), generator=generator).tolist()
    packing = pack([reply_group((), range(length + 1)) for length in lengths])
    assert len(packing.ids) == sum(lengths)
    blocks = packing.attention.table.blocks
    padded = sum(block.queries * block.keys // block.segments for block in blocks)
    assert padded <= 1.25 * sum(length**2 for length in lengths) + 4096 * len(blocks)


def test_attention_gathers_the_row_once_however_many_blocks_there_are():
    """A gather by block has a gradient of the whole row's size in each: a third of a step with thirty blocks."""
    packing = pack([reply_group(range(k), range(2 * k), range(3 * k)) for k in (1, 40, 150, 400)])
    flat = [torch.randn(len(packing.ids), 2, 4, requires_grad=True) for _ in range(3)]
    gathered = []
    with torch.profiler.profile(record_shapes=True) as profile:
        attend_packed(packing.attention, *flat).sum().backward()
    for event in profile.events():
        if event.name == "aten::index_add_":
            gathered.append(event.input_shapes[0])
    assert len(packing.attention.table.blocks) > 4
    # queries, keys and values, and the outputs put back into their order
    assert len(gathered) == 4
