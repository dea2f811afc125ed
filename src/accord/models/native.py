"""A decoder's step by one call of compiled C: for few rows on a CPU, where torch's operations are slow.

With few rows torch reads the weights at half the speed of the memory, and spends as long on some fifty small operations
per layer. `native.c` computes the whole step. It is compiled by the machine's own compiler when it is first needed,
for that machine's instructions, and kept in the user's cache; where that fails, a note says so and torch computes.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.models.decoder import Affine, Decoder, tried
from accord.models.kernels import computed_in
from accord.models.loading import bare

# rows of a step at most, over torch's threads; with more the gain shrinks from threefold to a third and less
ROWS = 64
THREADS = 2  # of torch at most: one thread reads the weights of a large model slower than many do
SOURCE = Path(__file__).with_suffix(".c")
FLAGS = (  # no -ffast-math: a NaN and the -inf below every score have to stay what they are
    "-O2",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native",
    "-fPIC",
)


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("panels", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
    ]


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, _Matrix) for name in ("qkv", "attention_out", "gate_up", "down")),
        *((name, ctypes.c_void_p) for name in ("query_norm", "key_norm")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        ("blocks", ctypes.POINTER(_Block)),
        ("head", _Matrix),
        *((name, ctypes.c_void_p) for name in ("final_norm", "rotation", "narrow", "wide", "scores")),
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "inner", "heads", "kv_heads", "size")),
        *((name, ctypes.c_float) for name in ("eps", "scaling")),
    ]


class _Pool(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("cache", "lengths")),
        *((name, ctypes.c_int64) for name in ("slots", "capacity", "live")),
    ]


class Native:
    """A decoder's step in C: token ids (rows,) of the live rows, pool by pool, to logits (rows, V) of the next.

    Many rows are left to the decoder's own forward, which reads and writes the same cache. The rule looks at numbers
    and never at the clock: a run that is resumed computes the same. The first step of few rows copies all matrices
    into panels: as much memory again as the decoder's own, for as long as it lives.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = weakref.proxy(decoder)  # which holds this: a cycle would keep the cache until it is collected
        self.library: Any = kernel()
        self.tensors: list[Tensor] = []  # what C has the addresses of
        self.model: _Model | None = None

    def __call__(self, ids: Tensor) -> Tensor:
        decoder = self.decoder
        if len(ids) * torch.get_num_threads() > ROWS:
            return decoder.forward(ids, [pool.reach for pool in decoder.pools])
        if self.model is None:
            self.model, self.pools = self._pack()
        for own, pool in zip(self.pools, decoder.pools, strict=True):
            own.live = pool.live
        rows = sum(pool.live for pool in decoder.pools)
        x = F.embedding(ids, decoder.embedding).view(rows, self.model.hidden)
        logits = x.new_empty(rows, self.model.head.columns)
        full = self.library.step(
            ctypes.byref(self.model),
            self.pools,
            ctypes.c_int64(len(self.pools)),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_void_p(logits.data_ptr()),
        )
        if full >= 0:
            raise IndexError(f"live row {full} has no room for another token")
        return decoder.readout(logits)

    def _pack(self) -> tuple[_Model, Any]:
        decoder = self.decoder
        blocks = [
            _Block(
                *(self._matrix(getattr(block, name)) for name in ("qkv", "attention_out", "gate_up", "down")),
                self._address(block.query_norm),
                self._address(block.key_norm),
            )
            for block in decoder.blocks
        ]
        hidden = decoder.embedding.shape[1]
        inner, attended = blocks[0].down.rows, blocks[0].attention_out.rows
        model = _Model(
            (_Block * len(blocks))(*blocks),
            self._matrix(decoder.head),
            self._address(decoder.final_norm),
            self._address(torch.view_as_real(decoder.rotation)),
            self._scratch(ROWS * max(hidden, inner, attended)),
            self._scratch(ROWS * max(2 * inner, blocks[0].qkv.columns)),
            self._scratch(len(decoder.rotation)),
            *(len(blocks), hidden, inner, decoder.heads, decoder.kv_heads, decoder.head_size),
            *(decoder.eps, decoder.scaling),
        )
        pools = [
            _Pool(self._address(pool.cache), self._address(pool.lengths), pool.slots, pool.capacity, 0)
            for pool in decoder.pools
        ]
        return model, (_Pool * len(pools))(*pools)

    def _matrix(self, affine: Affine) -> _Matrix:
        """Weight (in, out) as panels (out / width, in, width)."""
        weight, bias = affine
        width = self.library.panel()
        lacking = (0, -weight.shape[1] % width)
        panels = F.pad(weight, lacking).unflatten(1, (-1, width)).transpose(0, 1)
        return _Matrix(
            self._address(panels), self._address(None if bias is None else F.pad(bias, lacking)), *weight.shape
        )

    def _scratch(self, size: int) -> int | None:
        return self._address(torch.empty(size + self.library.panel()))  # the last vector may be half of numbers

    def _address(self, tensor: Tensor | None) -> int | None:
        """Where C finds the numbers, which stay as long as this does."""
        if tensor is None:
            return None
        self.tensors.append(tensor.contiguous())
        return self.tensors[-1].data_ptr()


def serves(model: nn.Module) -> bool:
    """Whether native steps of this model give the logits of plain ones: on a CPU in f32, tried once."""
    inner = bare(model)
    weight = inner.get_input_embeddings().weight
    if (
        weight.device.type != "cpu"
        or torch.get_num_threads() > THREADS
        or computed_in(weight) != torch.float32
        or type(inner.get_output_embeddings()) is not nn.Linear
        or inner.config.hidden_act not in ("silu", "swish")
    ):
        return False
    if kernel() is None:
        return False
    name = type(inner).__name__
    return tried(model, Native, f"native decoding steps of {name} disagree; torch's operations compute them")


@functools.cache
def kernel() -> ctypes.CDLL | None:
    """The compiled kernel, from the user's cache where it was built before; None, and a note, where it cannot be."""
    try:
        library = _load(_compiler())
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        print(f"note: decoding steps are computed by torch's operations; no C kernel: {said[0] if said else error!r}")
        return None
    library.step.restype = library.panel.restype = ctypes.c_int64
    return library


def _compiler() -> list[str]:
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        command = shlex.split(name)
        if command and shutil.which(command[0]):
            return command
    raise FileNotFoundError("no C compiler was found")


def _load(compiler: list[str]) -> ctypes.CDLL:
    """From the user's cache; from a folder of this process alone where nothing can be written there.

    The file's name tells what the compiler says of itself and of the instructions that it may use here: a cache may be
    shared by different machines.
    """
    target = _run([*compiler, *FLAGS, "-dM", "-E", "-x", "c", os.devnull])
    name = hashlib.sha256("\0".join([SOURCE.read_text(), *FLAGS, target]).encode()).hexdigest()[:32] + ".so"
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "accord"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                os.replace(_build(compiler, Path(scratch) / name), folder / name)  # another process may build it too
        return ctypes.CDLL(str(folder / name))
    except (OSError, RuntimeError):  # no home, no right to write, or none to execute what lies there
        with tempfile.TemporaryDirectory() as scratch:
            return ctypes.CDLL(str(_build(compiler, Path(scratch) / name)))


def _build(compiler: list[str], to: Path) -> Path:
    _run([*compiler, *FLAGS, "-shared", "-o", str(to), str(SOURCE), "-lm"])
    return to


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
