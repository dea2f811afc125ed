"""A policy: log-probs of given tokens over a packing, with an exact padded fallback."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.engine.forward.adapters import bare
from accord.engine.forward.attention import UnknownArgument, own_attention, packed
from accord.engine.forward.linear_logprobs import LogitTransform, linear_logprobs, linear_logprobs_and_entropy
from accord.engine.forward.trunk import FAMILIES, trunk_states
from accord.engine.forward.within import within
from accord.engine.packing import Packing
from accord.errors import BadInput

Head = Callable[[Tensor], Tensor]


def forward(model: nn.Module, packing: Packing, heads: Mapping[str, Head]) -> dict[str, Tensor]:
    """Run the trunk once over the packing and each head on its rows.

    A head maps hidden states (R, d) to values, one entry per row.
    """
    hidden = hidden_states(model, packing)
    return {name: head(hidden) for name, head in heads.items()}


def hidden_states(model: nn.Module, packing: Packing) -> Tensor:
    """Last hidden states (R, d) at the packing's rows, in the quickest way that is right for this model."""
    way = _way(model, longest=max(sum(b - a for a, b in s.keys) for s in packing.segments))
    return within(bare(model), lambda: way(model, packing))


def _by_layers(model: nn.Module, packing: Packing) -> Tensor:
    return trunk_states(bare(model).base_model, packing)


def _by_attention(model: nn.Module, packing: Packing) -> Tensor:
    """By the model's own forward over one packed row."""
    with packed(packing):
        out = bare(model).base_model(
            input_ids=packing.ids.unsqueeze(0), position_ids=packing.positions.unsqueeze(0), use_cache=False
        )
    hidden: Tensor = out.last_hidden_state[0]
    return hidden[packing.rows]


def padded_hidden_states(model: nn.Module, packing: Packing) -> Tensor:
    """The same by ordinary right-padded batches: the oracle of the packed forward, and its fallback."""
    sequences: list[list[int]] = []
    where: dict[int, tuple[int, int]] = {}
    for number, segment in enumerate(packing.segments):
        flat = [i for a, b in segment.keys for i in range(a, b)]
        sequences.append(flat)
        for offset, place in enumerate(flat):
            where.setdefault(place, (number, offset))
    longest = max(len(s) for s in sequences)
    index = torch.zeros(len(sequences), longest, dtype=torch.long, device=packing.ids.device)
    mask = torch.zeros_like(index)
    for number, flat in enumerate(sequences):
        index[number, : len(flat)] = torch.tensor(flat)
        mask[number, : len(flat)] = 1
    out = bare(model).base_model(
        input_ids=packing.ids[index] * mask,
        attention_mask=mask,
        position_ids=packing.positions[index] * mask,
        use_cache=False,
    )
    rows = [where[int(i)] for i in packing.rows]
    hidden: Tensor = out.last_hidden_state
    return hidden[[a for a, _ in rows], [b for _, b in rows]]


def packs(model: nn.Module, *, longest: int = 0) -> bool:
    """Whether a packed forward of this model equals its plain one on texts of up to `longest` tokens."""
    return _way(model, longest=longest) is not padded_hidden_states


def _way(model: nn.Module, *, longest: int) -> Callable[[nn.Module, Packing], Tensor]:
    """How this model computes hidden states of texts of up to `longest` tokens.

    Tried once per model on short texts; an attention window is read from the config, because only a text longer
    than it would show it.
    """
    inner = bare(model)
    known = getattr(inner, "_accord_way", None)
    if known is None:
        device = next(inner.parameters()).device.type
        with torch.autocast(device, enabled=False):  # bf16 rounds away what is looked for
            known = inner._accord_way = _probe(inner)
        if known is padded_hidden_states:
            _say_padded(inner)
    window = attention_window(inner.config)
    if known is not padded_hidden_states and window and longest > window:
        if not getattr(inner, "_accord_said_padded", False):
            inner._accord_said_padded = True
            _say_padded(inner)
        return padded_hidden_states
    way: Callable[[nn.Module, Packing], Tensor] = known
    return way


def _say_padded(inner: nn.Module) -> None:
    print(
        f"note: {type(inner).__name__} does not compute packed rows like plain ones (sliding windows, its own "
        "attention); padded batches are used instead, which is slower and gives the same numbers"
    )


def attention_window(config: Any) -> int:
    """The shortest reach of any attention layer in tokens; 0 where none is bounded."""
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    reaches = [r for r in (sliding, getattr(config, "attention_chunk_size", None)) if r]
    return min(reaches, default=0)


@torch.no_grad()
def _probe(model: Any) -> Callable[[nn.Module, Packing], Tensor]:
    """The first way whose log-probs of a shared prompt are those of the model's own eager attention, head included.

    A model whose attention takes what is not known here keeps its own for good. Raises BadInput where not even padded
    batches give the model's own numbers.
    """
    from accord.engine.packing import pack, reply_group

    vocab, device = model.config.vocab_size, next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in (5, 7, 4)]
    groups = [reply_group(draw[0], draw[1], draw[2]), reply_group(draw[1], draw[0])]
    packing = pack(groups).to(device)
    was_training = model.training
    model.eval()
    head = logits_head(model) if model.get_output_embeddings() is not None else None
    texts = [[*draw[0], *draw[1]], [*draw[0], *draw[2]], [*draw[1], *draw[0]]]
    theirs = []
    with own_attention(model):
        for text, replies in zip(texts, (draw[1], draw[2], draw[0]), strict=True):
            ids = torch.tensor([text], device=device)
            plain = model(input_ids=ids).logits if head is not None else model.base_model(input_ids=ids)[0]
            theirs.append(plain[0, len(text) - len(replies) - 1 : -1])
    expected = torch.cat(theirs)

    def same(way: Callable[[nn.Module, Packing], Tensor]) -> bool:
        hidden = way(model, packing)
        return alike(hidden if head is None else head(hidden), expected, torch.float32)

    by_layers = [_by_layers] if model.config.model_type in FAMILIES else []
    try:
        for way in (*by_layers, _by_attention):
            try:
                if same(way):
                    return way
            except UnknownArgument:
                model.set_attn_implementation("eager")
                break
            except (AttributeError, RuntimeError, TypeError, IndexError):
                pass  # layers of another make, or an attention of its own that a flat row does not fit
        if not same(padded_hidden_states):
            raise BadInput(
                f"{type(model).__name__} computes its logits in a way that is not known here, so its log-probs "
                "would be wrong; use another architecture"
            )
        return padded_hidden_states
    finally:
        model.train(was_training)


def alike(ours: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits computed in two ways differ by no more than products in `dtype` round."""
    tight = 1e-4 if dtype == torch.float32 else 5e-2
    scale = float(expected.abs().max().clamp(min=1))
    return bool(torch.allclose(ours, expected, rtol=10 * tight, atol=tight * scale))


def logits_head(model: nn.Module, *, temperature: float = 1.0) -> Head:
    """Hidden states (R, d) to logits / temperature (R, V) in f32, with what some architectures do after the matrix."""
    inner, transform = bare(model), logit_transform(model, temperature)
    matrix = inner.get_output_embeddings()

    def logits(hidden: Tensor) -> Tensor:
        return within(inner, lambda: transform(matrix(hidden)))

    return logits


def logit_transform(model: nn.Module, temperature: float = 1.0) -> LogitTransform:
    """What this architecture does with the head's product."""
    config = bare(model).config
    factor = getattr(config, "logit_scale", None) or 1.0  # Cohere
    factor /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    cap = getattr(config, "final_logit_softcapping", None) or 0.0  # Gemma 2
    return LogitTransform(factor, cap, temperature)


def logprob_head(model: nn.Module, packing: Packing, *, temperature: float = 1.0) -> Head:
    """Log-prob of each row's target, (R, d) to (R,), always by f32 log-softmax."""
    head = logits_head(model, temperature=temperature)

    def logprobs(hidden: Tensor) -> Tensor:
        if has_plain_head(model):
            transform = logit_transform(model, temperature)
            return within(bare(model), lambda: linear_logprobs(hidden, *_matrix(model), packing.targets, transform))
        return -F.cross_entropy(head(hidden), packing.targets, reduction="none")

    return logprobs


def has_plain_head(model: nn.Module) -> bool:
    """Whether the head is a matrix, and not an adapted or quantised one."""
    return type(bare(model).get_output_embeddings()) is nn.Linear


def _matrix(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    matrix = bare(model).get_output_embeddings()
    return matrix.weight, matrix.bias


def token_logprobs(model: nn.Module, packing: Packing, *, temperature: float = 1.0) -> Tensor:
    """Log-probs (R,) of the packing's targets."""
    return forward(model, packing, {"logprobs": logprob_head(model, packing, temperature=temperature)})["logprobs"]


def logprobs_and_entropy(
    model: nn.Module, packing: Packing, hidden: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probs of the packing's targets and entropy in nats at each row, (R,) both, from one set of logits.

    The entropy has no gradient.
    """
    if has_plain_head(model):
        transform = logit_transform(model, temperature)
        return within(
            bare(model), lambda: linear_logprobs_and_entropy(hidden, *_matrix(model), packing.targets, transform)
        )
    logs = torch.log_softmax(logits_head(model, temperature=temperature)(hidden), dim=-1)
    entropy = -(logs.detach().exp() * logs.detach()).sum(-1)
    return logs.gather(1, packing.targets.unsqueeze(1)).squeeze(1), entropy
