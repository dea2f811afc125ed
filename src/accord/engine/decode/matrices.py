"""The matrices of a layer as a decoder multiplies by them: folded together, or where the model has them.

Folded, a norm's weights are in the matrices behind it, and what reads the same input is one product. That is fewer
operations, of which a small model's step consists, and a copy of every matrix. Of a large model a step is its
products, and there may be no room for a copy: its matrices are views of the model's own, and norms and adapters are
operations of their own.

A CPU's product of few rows in f32 writes a matrix anew, in the order that its units read it, before it multiplies by
it. What is copied anyway is laid out in that order once, if it is too large for a core's cache.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

COPIED = 2**31  # bytes of a model's matrices up to which they are copied; not of free memory: same seed, same replies
LAID_OUT = 2**21  # bytes of one from which it is laid out for the CPU; products of one row are faster without

Affine = tuple[Tensor, Tensor | None]  # weight (out, in) and bias (out,) of a linear layer


class Matrix(NamedTuple):
    """x W + b + Σ (x A) B: weight (in, out), bias (out,), adapters (in, r) and (r, out) that are not in the weight.

    One that is `laid_out` is in oneDNN's own order, and no index into it means anything.
    """

    weight: Tensor
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor], ...] = ()
    laid_out: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """One layer's matrices; of several the products stand side by side. Norms are None where they are folded in.

    `order` (head size,) are the numbers of a query or key such that the two that a rotation mixes stand side by side;
    None where the matrices' columns have that order already.
    """

    attention_norm: Tensor | None
    qkv: tuple[Matrix, ...]
    order: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    attention_out: Matrix
    mlp_norm: Tensor | None
    gate_up: tuple[Matrix, ...]
    down: Matrix


def blocks_of(layers: Sequence[Any], size: int, low: torch.dtype, rows: int) -> list[Block]:
    """The layers' matrices in the type that products are computed in, of `rows` rows or more at once.

    Heads are `size` numbers wide. Matrices are copied where another type asks for it in any case, or where all of them
    are small.
    """
    matrices = [linear for layer in layers for linear in _linears(layer)]
    bytes_of_all = sum(linear.weight.numel() * linear.weight.element_size() for linear in matrices)
    copied = bytes_of_all <= COPIED or any(linear.weight.dtype != low for linear in matrices)
    return [folded(layer, size, low, rows) if copied else in_place(layer, size) for layer in layers]


def folded(layer: Any, size: int, low: torch.dtype, rows: int) -> Block:
    """A layer in four products, adapters merged and norms inside."""
    attention, mlp = layer.self_attn, layer.mlp
    pairs = paired(size, attention.q_proj.weight.device)

    def in_pairs(linear: Any) -> Affine:
        weight, bias = merged_weights(linear)
        weight = weight.unflatten(0, (-1, size))[:, pairs].flatten(0, 1)
        return weight, None if bias is None else bias.unflatten(0, (-1, size))[:, pairs].flatten()

    def join(*parts: Affine, norm: Tensor | None = None) -> Matrix:
        weight = parts[0][0] if len(parts) == 1 else torch.cat([weight for weight, _ in parts])
        weight = (weight if norm is None else weight * norm.detach()).to(low)
        if all(bias is None for _, bias in parts):
            return arrange(weight, None, rows)
        biases = [w.new_zeros(len(w)) if bias is None else bias for w, bias in parts]
        return arrange(weight, torch.cat(biases).to(low), rows)

    query, key, value = in_pairs(attention.q_proj), in_pairs(attention.k_proj), merged_weights(attention.v_proj)
    gate, up = merged_weights(mlp.gate_proj), merged_weights(mlp.up_proj)
    return Block(
        None,
        (join(query, key, value, norm=layer.input_layernorm.weight),),
        None,
        *_head_norms(attention, pairs),
        join(merged_weights(attention.o_proj)),
        None,
        (join(gate, up, norm=layer.post_attention_layernorm.weight),),
        join(merged_weights(mlp.down_proj)),
    )


def in_place(layer: Any, size: int) -> Block:
    """A layer as the model has it: no weight is copied."""
    attention, mlp = layer.self_attn, layer.mlp
    pairs = paired(size, attention.q_proj.weight.device)
    return Block(
        layer.input_layernorm.weight.detach(),
        tuple(_view(linear) for linear in (attention.q_proj, attention.k_proj, attention.v_proj)),
        pairs,
        *_head_norms(attention, pairs),
        _view(attention.o_proj),
        layer.post_attention_layernorm.weight.detach(),
        (_view(mlp.gate_proj), _view(mlp.up_proj)),
        _view(mlp.down_proj),
    )


def arrange(weight: Tensor, bias: Tensor | None, rows: int) -> Matrix:
    """A weight (out, in) in the order in which `rows` rows are multiplied by it: laid out for a CPU where worth it."""
    worth = rows > 1 and weight.numel() * weight.element_size() >= LAID_OUT
    if not worth or weight.dtype != torch.float32 or not can_lay_out(weight.device):
        return Matrix(weight.T.contiguous(), bias)
    return Matrix(torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows), bias, laid_out=True)


def can_lay_out(device: torch.device) -> bool:
    """Whether this CPU and this torch have such an order; what `torch.compile` uses for frozen weights."""
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return device.type == "cpu" and known and platform.machine().lower() in ("x86_64", "amd64")


def paired(size: int, device: torch.device) -> Tensor:
    """(size,): the numbers of a head, each followed by the one that the rotation mixes it with."""
    return torch.arange(size, device=device).view(2, -1).T.flatten()


def product(x: Tensor, matrix: Matrix, residual: Tensor | None = None) -> Tensor:
    """x W + b + Σ (x A) B + residual."""
    weight, bias, adapters, laid_out = matrix
    if laid_out:
        if residual is not None and residual.dtype == weight.dtype:
            return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, "add")
        out = torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), weight, bias, "none", [], "")
        return out if residual is None else residual + out
    if residual is not None and residual.dtype == weight.dtype and not adapters:
        out = torch.addmm(residual, x, weight)
        return out if bias is None else out + bias
    x = x.to(weight.dtype)
    out = x @ weight if bias is None else torch.addmm(bias, x, weight)
    for down, up in adapters:
        out = torch.addmm(out, x @ down, up)
    return out if residual is None else residual + out  # the residual stream keeps its digits


def products(x: Tensor, matrices: Sequence[Matrix]) -> Tensor:
    """What matrices give of the same rows, side by side."""
    parts = [product(x, matrix) for matrix in matrices]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def merged_weights(linear: Any) -> Affine:
    """Weight and bias of a linear layer, its active adapters merged in."""
    base = getattr(linear, "base_layer", linear)
    weight = base.weight.detach()
    if names := _active(linear):
        weight = weight + sum(linear.get_delta_weight(name) for name in names)
    return weight, None if base.bias is None else base.bias.detach()


def _view(linear: Any) -> Matrix:
    base = getattr(linear, "base_layer", linear)
    adapters = tuple(
        (linear.lora_A[name].weight.detach().T, linear.lora_B[name].weight.detach().T * linear.scaling[name])
        for name in _active(linear)
    )
    return Matrix(base.weight.detach().T, None if base.bias is None else base.bias.detach(), adapters)


def _active(linear: Any) -> Sequence[str]:
    """Adapters that are not in the weight of a linear layer and are to be added to it."""
    adapted = hasattr(linear, "base_layer") and not linear.disable_adapters and not linear.merged
    return linear.active_adapters if adapted else ()


def _linears(layer: Any) -> list[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    linears = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    linears += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return [getattr(linear, "base_layer", linear) for linear in linears]


def _head_norms(attention: Any, pairs: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Weights of the norms of query and key, in pairs; None where there are none."""
    norms = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    query, key = (None if norm is None else norm.weight.detach()[pairs] for norm in norms)
    return query, key
