"""Records' token ids → the packing; the only place that pads, packs or shares a prefix.

A packing is one flat row of tokens cut into segments. A segment is a range of queries and the ranges of keys they
see, so that the replies to one prompt share it: the prompt is stored and computed once. Only the rows that a loss
needs reach a head. Padding exists inside the attention backend alone (`AttentionBlock`) and in the padded
oracle (engine/forward/causal.py).
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

Item = TypeVar("Item")

# in memory at once, where no knob says how many; changes no result
MICRO_TOKENS = 16384


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt's ids and the replies that share it. `masks[k][j]` is True where reply k's token j is trained on.

    The prefix may be empty: a document or a whole conversation is then a single reply.
    """

    prefix: tuple[int, ...]
    replies: tuple[tuple[int, ...], ...]
    masks: tuple[tuple[bool, ...], ...]

    @property
    def tokens(self) -> int:
        return len(self.prefix) + sum(len(reply) for reply in self.replies)

    @property
    def trained(self) -> int:
        """Tokens that carry loss; the first of a text has nothing to be predicted from."""
        total = sum(sum(mask) for mask in self.masks)
        return total if self.prefix else total - sum(mask[0] for mask in self.masks if mask)


def reply_group(prefix: Sequence[int], *replies: Sequence[int]) -> Group:
    """Replies whose every token counts."""
    return Group(
        tuple(prefix),
        tuple(tuple(reply) for reply in replies),
        tuple((True,) * len(reply) for reply in replies),
    )


def common_beginning(texts: Sequence[Sequence[int]]) -> int:
    """How many ids all of the texts begin with."""
    shortest = min(map(len, texts), default=0)
    return next((k for k in range(shortest) if len({text[k] for text in texts}) > 1), shortest)


@dataclass(frozen=True, slots=True)
class Segment:
    """Queries [start, stop) and the ranges of tokens they see; the last range is the queries' own tokens, causal."""

    start: int
    stop: int
    keys: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class AttentionBlock:
    """Segments of similar length, padded together: S segments with `queries` queries and `keys` keys in all.

    `mask` (S, 1, queries / S, keys / S) is True where a key is seen; it is None when every segment sees only itself,
    where plain causal attention does.
    """

    segments: int
    queries: int
    keys: int
    mask: Tensor | None

    @functools.cached_property
    def bias(self) -> Tensor | None:
        """The mask as kernels in f32 add it to scores: 0 where a key is seen, else −∞."""
        if self.mask is None:
            return None
        return torch.zeros(self.mask.shape, device=self.mask.device).masked_fill_(~self.mask, float("-inf"))


@dataclass(frozen=True, slots=True)
class AttentionTable:
    """How queries attend to a flat row: block by block.

    `queries` and `keys` are the numbers of those that the blocks take, one block behind the other; `place` (Q,) says
    where a query's output stands among all outputs.
    """

    blocks: tuple[AttentionBlock, ...]
    queries: Tensor
    keys: Tensor
    place: Tensor


@dataclass(frozen=True, slots=True)
class VarlenCall:
    """Segments as a kernel for texts of various lengths takes them: behind each other, without padding.

    `queries` and `keys` (K,) number queries and the row's tokens; `query_starts` and `key_starts` (S + 1,) int32 are
    where each segment begins in them. A segment's last query sees its last key, the one before it all but that, and so
    on.
    """

    queries: Tensor
    keys: Tensor
    query_starts: Tensor
    key_starts: Tensor
    longest_query: int
    longest_key: int


@dataclass(frozen=True, eq=False)  # itself and no other: what is computed once is kept by it
class Attention:
    """Which tokens of a flat row each of some queries sees.

    `at` (Q,): the token that each query belongs to. Segments number queries by their place in `at`, keys by their
    token.
    """

    segments: tuple[Segment, ...]
    at: Tensor

    @functools.cached_property
    def table(self) -> AttentionTable:
        """Segments of like size as blocks."""
        return attention_table(self.segments, len(self.at), self.at.device)

    @functools.cached_property
    def calls(self) -> tuple[tuple[VarlenCall, ...], Tensor]:
        """The same for kernels that take lengths: segments that see themselves alone, then replies to a prompt."""
        return varlen_calls(self.segments, len(self.at), self.at.device)


@dataclass(frozen=True, eq=False)
class Packing:
    """Packed tokens and the rows that heads are computed on.

    `ids`, `positions` (T,) · `segments` · `rows`, `targets`, `owner`, `slots` (R,): the flat position whose hidden
    state a head reads, the token it predicts, the reply it belongs to (numbered throughout) and the place in it.
    """

    ids: Tensor
    positions: Tensor
    segments: tuple[Segment, ...]
    rows: Tensor
    targets: Tensor
    owner: Tensor
    slots: Tensor
    replies: int

    @functools.cached_property
    def attention(self) -> Attention:
        """Every token's."""
        return Attention(self.segments, torch.arange(len(self.ids), device=self.ids.device))

    @functools.cached_property
    def ending(self) -> tuple[Attention, Tensor]:
        """Attention of the tokens that a last layer has to compute, and the place of every row (R,) among them.

        Of each segment that is from the first token that a head reads to the last: of a prompt its last token, which
        predicts the first of every reply.
        """
        read = np.unique(self.rows.cpu().numpy())
        segments, parts = [], []
        count = 0
        bounds = np.searchsorted(read, [(segment.start, segment.stop) for segment in self.segments])
        for segment, (first, behind) in zip(self.segments, bounds, strict=True):
            if first == behind:
                continue
            start, stop = int(read[first]), int(read[behind - 1]) + 1
            before = ((segment.start, start),) if start > segment.start else ()
            keys = (*segment.keys[:-1], *before, (start, stop))
            segments.append(Segment(count, count + stop - start, keys))
            parts.append(np.arange(start, stop))
            count += stop - start
        if count in (0, len(self.ids)):
            return self.attention, self.rows
        at = torch.from_numpy(np.concatenate(parts)).to(self.ids.device)
        return Attention(tuple(segments), at), torch.searchsorted(at, self.rows)

    def to(self, device: torch.device) -> "Packing":
        if self.ids.device == device:
            return self
        rows, targets, owner, slots = (t.to(device) for t in (self.rows, self.targets, self.owner, self.slots))
        ids, positions = self.ids.to(device), self.positions.to(device)
        return Packing(ids, positions, self.segments, rows, targets, owner, slots, self.replies)

    def scatter(self, values: Tensor, width: int | None = None, fill: float = 0.0) -> Tensor:
        """Values (R,) of the rows as a (replies, width) matrix, `fill` where a reply has no token."""
        width = int(self.slots.max()) + 1 if width is None else width
        out = values.new_full((self.replies, width), fill)
        return out.index_put((self.owner, self.slots), values)


def pack(groups: Sequence[Group], *, rows: Literal["targets", "last"] = "targets") -> Packing:
    """Pack groups. `rows="targets"`: one row per trained token, at the position that predicts it (the first reply
    token is predicted by the prompt's last). `rows="last"`: one row per reply, at its last token (scalar heads).

    With `targets`, the last token of a reply is not even run through the model: nothing is read there.
    """
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    row_at: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    slot: list[int] = []
    reply_number = 0
    for group in groups:
        prefix_start = len(ids)
        prefix_stop = prefix_start + len(group.prefix)
        ids.extend(group.prefix)
        positions.extend(range(len(group.prefix)))
        shared = len(group.replies) > 1 and bool(group.prefix)
        if shared:
            segments.append(Segment(prefix_start, prefix_stop, ((prefix_start, prefix_stop),)))
        for reply, mask in zip(group.replies, group.masks, strict=True):
            start = len(ids)
            kept = len(reply) if rows == "last" else max(len(reply) - 1, 0)
            ids.extend(reply[:kept])
            positions.extend(range(len(group.prefix), len(group.prefix) + kept))
            if shared:
                if kept:
                    segments.append(Segment(start, start + kept, ((prefix_start, prefix_stop), (start, start + kept))))
            elif len(ids) > prefix_start:
                begin = prefix_start if group.prefix else start
                segments.append(Segment(begin, len(ids), ((begin, len(ids)),)))
            if rows == "last":
                row_at.append(start + kept - 1 if kept else prefix_stop - 1)
                target.append(0)
                owner.append(reply_number)
                slot.append(0)
            else:
                for j, (token, counts) in enumerate(zip(reply, mask, strict=True)):
                    if counts and (j or group.prefix):
                        row_at.append(start + j - 1 if j else prefix_stop - 1)
                        target.append(token)
                        owner.append(reply_number)
                        slot.append(j)
            reply_number += 1
    long = functools.partial(torch.tensor, dtype=torch.long)
    return Packing(
        long(ids),
        long(positions),
        tuple(segments),
        long(row_at),
        long(target),
        long(owner),
        long(slot),
        reply_number,
    )


def attention_table(
    segments: Sequence[Segment], length: int, device: torch.device, *, waste: float = 1.25
) -> AttentionTable:
    """Bucket segments of similar size so that padding costs at most about `waste` times the exact work."""

    def shape(segment: Segment) -> tuple[bool, int, int]:
        return len(segment.keys) > 1, sum(b - a for a, b in segment.keys), segment.stop - segment.start

    buckets: list[list[Segment]] = []
    kind, cost, widest = False, 0, 0
    for (several, keys, queries), segment in sorted(((shape(s), s) for s in segments), key=lambda pair: pair[0]):
        wide, exact = max(widest, queries), cost + keys * queries
        if buckets and kind == several and (len(buckets[-1]) + 1) * keys * wide <= waste * exact + 4096:
            buckets[-1].append(segment)
            cost, widest = exact, wide
        else:
            buckets.append([segment])
            kind, cost, widest = several, keys * queries, queries
    blocks: list[AttentionBlock] = []
    queries_at, keys_at = [], []
    place = np.zeros(length, dtype=np.int64)
    offset = 0
    for bucket in buckets:
        own, of_own, own_counts = _padded([((s.start, s.stop),) for s in bucket])
        seen, _, counts = _padded([s.keys for s in bucket])
        place[own[of_own]] = offset + np.flatnonzero(of_own)
        offset += own.size
        mask = None
        if len(bucket[0].keys) > 1:
            # the first query sees what comes before the queries' own keys, and its own; a padded one only the former
            query, key = np.arange(own.shape[1])[:, None], np.arange(seen.shape[1])
            behind = (counts - own_counts)[:, None, None] + np.where(of_own[:, :, None], query + 1, 0)
            mask = torch.from_numpy(key < behind).unsqueeze(1).to(device)
        blocks.append(AttentionBlock(len(bucket), own.size, seen.size, mask))
        queries_at.append(own.ravel())
        keys_at.append(seen.ravel())
    flat_queries, flat_keys = (torch.from_numpy(np.concatenate(p)).to(device) for p in (queries_at, keys_at))
    return AttentionTable(tuple(blocks), flat_queries, flat_keys, torch.from_numpy(place).to(device))


def _padded(ranges: Sequence[Sequence[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of ranges [a, b) as numbers (S, longest), 0 behind the last; which of them are some; how many a row has."""
    flat = np.array([pair for row in ranges for pair in row], dtype=np.int64)
    row_of = np.repeat(np.arange(len(ranges)), [len(row) for row in ranges])
    lengths = flat[:, 1] - flat[:, 0]
    counts = np.bincount(row_of, weights=lengths, minlength=len(ranges)).astype(np.int64)
    filled = np.arange(counts.max()) < counts[:, None]
    numbers = np.zeros(filled.shape, dtype=np.int64)
    behind = np.cumsum(lengths)
    numbers[filled] = np.repeat(flat[:, 1] - behind, lengths) + np.arange(behind[-1])
    return numbers, filled, counts


def varlen_calls(
    segments: Sequence[Segment], length: int, device: torch.device
) -> tuple[tuple[VarlenCall, ...], Tensor]:
    """At most two calls, and for each flat position its place in their concatenated outputs.

    Prompts and lone texts are one call; in the other every reply has a copy of its prompt's keys before its own
    (prefix grouper, arXiv:2506.05433), so that both are plain causal attention aligned at the end.
    """
    calls = []
    place = np.zeros(length, dtype=np.int64)
    offset = 0
    for shared in (False, True):
        chosen = [segment for segment in segments if (len(segment.keys) > 1) == shared]
        if not chosen:
            continue
        queries = [np.arange(segment.start, segment.stop) for segment in chosen]
        keys = [np.concatenate([np.arange(a, b) for a, b in segment.keys]) for segment in chosen]
        flat = np.concatenate(queries)
        place[flat] = offset + np.arange(len(flat))
        offset += len(flat)
        starts = [np.cumsum([0, *map(len, parts)], dtype=np.int32) for parts in (queries, keys)]
        index, query_starts, key_starts = (torch.from_numpy(array).to(device) for array in (flat, *starts))
        gathered = torch.from_numpy(np.concatenate(keys)).to(device)
        longest = max(map(len, queries)), max(map(len, keys))
        calls.append(VarlenCall(index, gathered, query_starts, key_starts, *longest))
    return tuple(calls), torch.from_numpy(place).to(device)


def cut_by_tokens(items: Sequence[Item], size: Callable[[Item], int], budget: int) -> list[list[Item]]:
    """Consecutive micro-batches of at most `budget` tokens; one item alone may exceed it."""
    parts: list[list[Item]] = []
    used = budget + 1
    for item in items:
        tokens = size(item)
        if used + tokens > budget:
            parts.append([])
            used = 0
        parts[-1].append(item)
        used += tokens
    return parts


def pack_replies(rows: Iterable[Sequence[float]], width: int) -> Tensor:
    """Ragged rows as a (B, width) float matrix, 0 where a row has ended."""
    rows = list(rows)
    out = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out


def length_mask(lengths: Sequence[int], width: int) -> Tensor:
    """(B, width) bool, True on the first `lengths[i]` slots; masks come from lengths, never from token ids."""
    return torch.arange(width).unsqueeze(0) < torch.tensor(list(lengths)).unsqueeze(1)
