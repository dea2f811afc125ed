"""Decoding over the weights of a Hugging Face model, one new token per row and step, without its module calls.

With one token per row a transformers forward spends most of its time on dispatch and on copying the cache. Here a
layer is few products (engine.decode.matrices), and keys and values stay where they were written: a cache of slots,
whose rows come and go while others go on.

Architectures with RMSNorm, rotary positions and gated MLPs; `decodes` compares with the model's own forward before
the first use, and `engine.decode.fallback` serves the rest.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.engine.decode.matrices import COPIED, Matrix, arrange, blocks_of, merged_weights, product, products
from accord.engine.forward.adapters import bare
from accord.engine.forward.attention import attend_packed, own_attention
from accord.engine.forward.causal import alike, attention_window, logit_transform
from accord.engine.forward.dtype import computed_in
from accord.engine.forward.trunk import FAMILIES
from accord.engine.packing import common_beginning, pack, reply_group

ROTARY = frozenset({"default", "linear", "llama3", "yarn"})  # whose angles depend on nothing but the position
LONG_BEGINNING = 32  # tokens that prompts have in common from which on they are computed once

# layer, queries, keys and values (T, heads, d) of a flat row → what they attend to (T, heads, d)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
Reach = tuple[int, int]  # rows of a pool that a step computes, and tokens that they read
Shortcut = Callable[[Tensor], Tensor]  # ids (rows,) of the live rows → logits (rows, V) as `Decoder.forward` has them


class Pool:
    """A cache of `slots` rows of up to `capacity` tokens; slots [0, live) are in use, `lengths` tokens in each.

    `sizes` are the lengths on the host, where asking for the longest waits for no device. An unused slot has length 0.
    """

    def __init__(self, layers: int, slots: int, kv_heads: int, capacity: int, size: int, like: Tensor) -> None:
        self.cache = _zeros((layers, 2, slots, kv_heads, capacity, size), like)  # what is masked must be finite
        self.flat = self.cache.view(layers, 2, slots * kv_heads * capacity, size)
        self.lengths = torch.zeros(slots, dtype=torch.long, device=like.device)
        self.sizes = np.zeros(slots, dtype=np.int64)
        self.slots, self.kv_heads, self.capacity, self.live = slots, kv_heads, capacity, 0

    @property
    def reach(self) -> Reach:
        """Rows in use, and tokens of the longest with the one that comes."""
        return (self.live, int(self.sizes[: self.live].max()) + 1) if self.live else (0, 0)

    def places(self, slots: Tensor, positions: Tensor) -> Tensor:
        """Rows (N · kv_heads,) of `flat` of these slots and positions, (N,) both."""
        heads = torch.arange(self.kv_heads, device=slots.device)
        return ((slots.unsqueeze(1) * self.kv_heads + heads) * self.capacity + positions.unsqueeze(1)).flatten()

    def write(self, layer: int, places: Tensor, key: Tensor, value: Tensor) -> None:
        self.flat[layer, 0].index_copy_(0, places, key.flatten(0, 1))
        self.flat[layer, 1].index_copy_(0, places, value.flatten(0, 1))

    def enter(self, sizes: np.ndarray) -> None:
        """Put rows of so many tokens behind the live ones."""
        stop = self.live + len(sizes)
        self.sizes[self.live : stop] = sizes
        self.lengths[self.live : stop] = torch.from_numpy(sizes).to(self.lengths.device)
        self.live = stop

    def grow(self) -> None:
        """One more token in every live row."""
        self.sizes[: self.live] += 1
        self.lengths[: self.live] += 1

    def keep(self, going: np.ndarray) -> np.ndarray:
        """Drop the live rows where `going` (live,) is False; returns the former slots of those that stay, in order.

        The gaps are filled from the end, so only as many rows move as have ended.
        """
        left = int(going.sum())
        order = np.arange(left)
        gaps = np.flatnonzero(~going[:left])
        if len(gaps):
            movers = left + np.flatnonzero(going[left:])
            longest = int(self.sizes[movers].max())
            to, of = (torch.from_numpy(slots).to(self.lengths.device) for slots in (gaps, movers))
            self.cache[:, :, to, :, :longest] = self.cache[:, :, of, :, :longest]
            self.sizes[gaps] = self.sizes[movers]
            order[gaps] = movers
        self.sizes[left : self.live] = 0
        self.lengths[: self.live] = torch.from_numpy(self.sizes[: self.live]).to(self.lengths.device)
        self.live = left
        return order


class Decoder:
    """A frozen view of a model's weights, adapters active, and pools of slots for (slots, capacity) each.

    Rows of similar length share a pool: at each step every row of a pool reads as far as its longest.
    """

    def __init__(self, model: nn.Module, pools: Sequence[tuple[int, int]]) -> None:
        inner = bare(model)
        config, trunk = inner.config, inner.base_model
        attention = trunk.layers[0].self_attn
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size, self.scaling = int(attention.head_dim), float(attention.scaling)
        self.eps, self.activation = config.rms_norm_eps, trunk.layers[0].mlp.act_fn
        self.embedding = inner.get_input_embeddings().weight.detach()
        self.final_norm = trunk.norm.weight.detach()
        # cast once, as autocast would at every step
        self.low = computed_in(self.embedding)
        rows = min(32, sum(slots for slots, _ in pools))
        self.head, self.transform = self._head(inner.get_output_embeddings(), rows), logit_transform(model)
        self.blocks = blocks_of(trunk.layers, self.head_size, self.low, rows)
        every = torch.arange(max(capacity for _, capacity in pools), device=self.embedding.device).unsqueeze(0)
        cosine, sine = trunk.rotary_emb(self.embedding.new_zeros((), dtype=torch.float32), every)
        half = self.head_size // 2
        self.rotation = torch.complex(cosine[0, :, None, :half].contiguous(), sine[0, :, None, :half].contiguous())
        self.pools = [
            Pool(
                len(self.blocks),
                slots,
                self.kv_heads,
                capacity,
                self.head_size,
                self.embedding.new_empty(0, dtype=self.low),
            )
            for slots, capacity in pools
        ]
        self.shortcut: Shortcut | None = None

    def _head(self, linear: Any, rows: int) -> Matrix | nn.Module:
        if type(linear) is not nn.Linear:
            return linear
        weight, bias = merged_weights(linear)
        weight, bias = weight.to(self.low), None if bias is None else bias.to(self.low)
        small = weight.numel() * weight.element_size() <= COPIED
        return arrange(weight, bias, rows) if small else Matrix(weight.T, bias)

    def _normalised(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        normalised = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype)
        return normalised if weight is None else normalised * weight

    def trunk(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states (T, d) behind the last norm of tokens `ids` at `positions`, (T,) both."""
        x = F.embedding(ids, self.embedding)
        rotation = self.rotation[positions]
        turned = self.heads + self.kv_heads
        for number, block in enumerate(self.blocks):
            mixed = products(self._normalised(x, block.attention_norm), block.qkv).view(len(ids), -1, self.head_size)
            if block.order is not None:
                mixed = torch.cat([mixed[:, :turned, block.order], mixed[:, turned:]], dim=1)
            if block.query_norm is not None and block.key_norm is not None:
                query = self._normalised(mixed[:, : self.heads], block.query_norm)
                key = self._normalised(mixed[:, self.heads : turned], block.key_norm)
                mixed = torch.cat([query, key, mixed[:, turned:]], dim=1)
            pairs = torch.view_as_complex(mixed[:, :turned].float().unflatten(2, (-1, 2)))
            both = torch.view_as_real(pairs * rotation).flatten(2).to(self.low)
            seen = attend(number, both[:, : self.heads], both[:, self.heads :], mixed[:, turned:].to(self.low))
            x = product(seen.flatten(1), block.attention_out, x)
            gate, up = products(self._normalised(x, block.mlp_norm), block.gate_up).chunk(2, dim=1)
            x = product(self.activation(gate) * up, block.down, x)
        return self._normalised(x, self.final_norm)

    def beginning(self, ids: Sequence[int]) -> Tensor:
        """Keys and values (layers, 2, kv heads, tokens, size) of what prompts begin with, as `admit` takes them."""
        packing = pack([reply_group((), ids)], rows="last").to(self.embedding.device)
        shape = (len(self.blocks), 2, self.kv_heads, len(ids), self.head_size)
        kept = self.embedding.new_zeros(shape, dtype=self.low)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            kept[layer, 0], kept[layer, 1] = key.transpose(0, 1), value.transpose(0, 1)
            return attend_packed(packing.attention, query, key, value, scaling=self.scaling)

        self.trunk(packing.ids, packing.positions, attend)
        return kept

    def admit(self, number: int, prompts: Sequence[Sequence[int]], n: int, stem: Tensor | None = None) -> Tensor:
        """Take prompts into a pool, `n` rows each behind its live ones; logits (prompts · n, V) of their first tokens.

        A prompt is computed once, whatever `n`; and so is a long beginning that all of them share (worked examples).
        `stem` are the keys and values of one that they all go on behind (`beginning`): it is not computed again.
        """
        pool = self.pools[number]
        known = 0 if stem is None else stem.shape[3]
        sizes = np.array([len(prompt) for prompt in prompts])
        common = min(common_beginning(prompts), int(sizes.min()) - 1) if len(prompts) > 1 else known
        common = common if common >= max(known, LONG_BEGINNING) else known
        rests = [prompt[common:] for prompt in prompts]
        groups = [reply_group(prompts[0][:common], *rests)] if common else [reply_group((), rest) for rest in rests]
        packing = pack(groups, rows="last").to(pool.lengths.device)
        firsts = pool.live + n * torch.arange(len(prompts), device=pool.lengths.device)
        counts = torch.from_numpy(sizes - common).to(firsts.device)
        owners = torch.cat([firsts[:1].expand(common), firsts.repeat_interleave(counts)])
        places = pool.places(owners[known:], packing.positions[known:])

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            pool.write(layer, places, key, value)
            if stem is not None:  # its own queries are of no use, and its rows of the packing are there
                query = torch.cat([query.new_zeros(known, *query.shape[1:]), query])
                key, value = (torch.cat([stem[layer, i].transpose(0, 1), x]) for i, x in enumerate((key, value)))
            return attend_packed(packing.attention, query, key, value, scaling=self.scaling)[known:]

        hidden = self.trunk(packing.ids[known:], packing.positions[known:], attend)[packing.rows - known]
        longest = int(sizes.max())
        if stem is not None:
            pool.cache[:, :, firsts[0], :, :known] = stem
        if common:
            pool.cache[:, :, firsts[1:], :, :common] = pool.cache[:, :, firsts[:1], :, :common]
        for copy in range(1, n):
            pool.cache[:, :, firsts + copy, :, :longest] = pool.cache[:, :, firsts, :, :longest]
        pool.enter(sizes.repeat(n))
        return self.logits(hidden).repeat_interleave(n, 0)

    def step(self, ids: Tensor) -> Tensor:
        """One more token in every live row, (rows,) pool by pool; logits (rows, V) of the next."""
        logits = self.shortcut(ids) if self.shortcut else self.forward(ids, [pool.reach for pool in self.pools])
        for pool in self.pools:
            pool.grow()
        return logits

    def forward(self, ids: Tensor, reaches: Sequence[Reach]) -> Tensor:
        """What a step computes, on the device alone: a token for the first rows of every pool; logits (rows, V).

        Rows beyond the live ones are computed like others, and written where nothing is.
        """
        used = [(pool, rows, read) for pool, (rows, read) in zip(self.pools, reaches, strict=True) if rows]
        lengths = [pool.lengths[:rows] for pool, rows, _ in used]
        places = [
            pool.places(torch.arange(rows, device=ids.device), length)
            for (pool, rows, _), length in zip(used, lengths, strict=True)
        ]
        masks = [self._mask(length, read) for length, (_, _, read) in zip(lengths, used, strict=True)]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            seen, start = [], 0
            for (pool, count, read), place, mask in zip(used, places, masks, strict=True):
                rows = slice(start, start + count)
                pool.write(layer, place, key[rows], value[rows])
                keys, values = pool.cache[layer, :, :count, :, :read].flatten(1, 2)
                own = query[rows].reshape(len(keys), -1, self.head_size)
                weights = torch.softmax(torch.baddbmm(mask, own, keys.transpose(1, 2), alpha=self.scaling), dim=2)
                seen.append(torch.bmm(weights, values).view(count, self.heads, self.head_size))
                start = rows.stop
            return seen[0] if len(seen) == 1 else torch.cat(seen)

        return self.logits(self.trunk(ids, torch.cat(lengths), attend))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (R, V) in f32 of hidden states (R, d)."""
        return self.transform(product(hidden, self.head) if isinstance(self.head, Matrix) else self.head(hidden))

    def _mask(self, lengths: Tensor, read: int) -> Tensor:
        """(rows · kv_heads, 1, read): 0 up to each row's new token, -∞ behind it."""
        columns = torch.arange(read, device=lengths.device)
        behind = (columns > lengths.unsqueeze(1)).repeat_interleave(self.kv_heads, 0).unsqueeze(1)
        return torch.zeros_like(behind, dtype=self.low).masked_fill_(behind, float("-inf"))


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros; on a CPU their pages are made when first written, and most of a cache never is."""
    if like.device.type != "cpu":
        return torch.zeros(shape, device=like.device, dtype=like.dtype)
    untouched = np.zeros(math.prod(shape) * like.element_size(), dtype=np.uint8)
    return torch.from_numpy(untouched).view(like.dtype).view(shape)


def decodes(model: nn.Module, *, longest: int) -> bool:
    """Whether a `Decoder` of this model gives its own logits on texts of up to `longest` tokens; tried once."""
    inner = bare(model)
    known = getattr(inner, "_accord_decodes", None)
    if known is None:
        with torch.autocast(next(inner.parameters()).device.type, enabled=False):  # bf16 rounds away what is looked for
            known = inner._accord_decodes = _probe(model, inner)
    window = attention_window(inner.config)
    return bool(known) and not (window and longest > window)


def _probe(model: nn.Module, inner: Any) -> bool:
    """Compare two prompts, one more token each, and another after a row has left, with the model's own attention."""
    config = inner.config
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type not in FAMILIES or rotary not in ROTARY or inner.get_output_embeddings() is None:
        return False
    generator = torch.Generator().manual_seed(0)
    long, short, more = (torch.randint(0, config.vocab_size, (k,), generator=generator).tolist() for k in (7, 4, 4))
    try:
        ours, order = _decoded(model, [long, short], more)
    except (AttributeError, RuntimeError, TypeError):
        return False  # layers of another make: quantised, or adapters that are no sum of matrices
    texts = [[*prompt, token] for prompt, token in zip((long, long, short, short), more, strict=True)]
    texts += [[*texts[row], token] for row, token in zip(order, more, strict=False)]
    with torch.no_grad(), own_attention(inner):
        theirs = [model(input_ids=torch.tensor([text], device=ours.device)).logits[0].float() for text in texts]
    expected = torch.stack([*(logits[-2] for logits in theirs[:4]), *(logits[-1] for logits in theirs)])
    return alike(ours, expected, inner.dtype)


@torch.no_grad()
def _decoded(model: nn.Module, prompts: Sequence[Sequence[int]], more: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Logits of two rows per prompt, after a token each, and after another in the rows that stay; and which stay."""
    decoder = Decoder(model, [(4, 10)])
    first = decoder.admit(0, prompts, 2)
    ids = torch.tensor(more, device=first.device)
    second = decoder.step(ids)
    order = decoder.pools[0].keep(np.array([False, True, True, True]))
    return torch.cat([first, second, decoder.step(ids[:3])]), order.tolist()


def tried(model: nn.Module, shortcut: Callable[[Decoder], Shortcut], otherwise: str) -> bool:
    """Whether a shortcut `agrees`, asked once per model, which remembers it; the note `otherwise` where it does not."""
    inner: Any = bare(model)
    known = inner.__dict__.setdefault("_accord_shortcuts", {})
    if shortcut not in known:
        known[shortcut] = agrees(model, shortcut)
        if not known[shortcut]:
            print(f"note: {otherwise}")
    return bool(known[shortcut])


@torch.no_grad()
def agrees(model: nn.Module, shortcut: Callable[[Decoder], Shortcut]) -> bool:
    """Compare steps by a shortcut with plain ones, before and after a row has left; one that fails disagrees."""
    plain, short = (Decoder(model, [(4, 16), (2, 12)]) for _ in range(2))
    try:
        short.shortcut = shortcut(short)
        ours, theirs = _stepped(short), _stepped(plain)
    except RuntimeError:
        return False
    return alike(ours, theirs, plain.low)


def _stepped(decoder: Decoder) -> Tensor:
    """Logits of a few steps in two pools, with a row that leaves after the third."""
    ids = torch.tensor([5, 1, 4, 2, 3], device=decoder.embedding.device)
    logits = [decoder.admit(0, [(1, 2, 3), (4,)], 2), decoder.admit(1, [(2, 1)], 1)]
    logits += [decoder.step(ids) for _ in range(3)]
    decoder.pools[0].keep(np.array([True, False, True, True]))
    logits += [decoder.step(ids[1:]) for _ in range(3)]
    return torch.cat(logits)
