"""Engines: prompts → rollouts, in this process on the model's own weights, or by a server that the weights are sent to.

Both give the same: token ids in, token ids and the log-probs they were drawn at out, each reply's random numbers a
function of the seed and its prompt's number.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import nn

from accord.engine.decode.draw import Finished, SampleSettings
from accord.engine.decode.sampler import CACHED, sample
from accord.engine.decode.stems import Stems
from accord.engine.forward.adapters import merged
from accord.engine.remote.fleet import Fleet, servers_at
from accord.engine.remote.vllm import Server
from accord.records import Rollout


class Engine(Protocol):
    """What draws replies. One that is `remote` leaves this process idle while it does."""

    remote: ClassVar[bool]

    def follow(self, policy: nn.Module, *, send: bool = True) -> None:
        """Draw from this policy, as it is now; another process sends its weights where they go unless `send`."""

    def sample(
        self, prompts: Sequence[Sequence[int]], settings: SampleSettings, finished: Finished | None = None
    ) -> list[Rollout]:
        """`settings.n` rollouts per prompt, prompt by prompt; `finished` hears of a prompt's once it has the last."""


@dataclass
class InProcess:
    """The trainer's own weights: nothing is copied and nothing sent. `cache_tokens` bounds the cache.

    Of a model that is not trained, `stems` keeps what its prompts begin with.
    """

    remote: ClassVar[bool] = False
    model: nn.Module
    cache_tokens: int = CACHED
    stems: Stems | None = None

    def follow(self, policy: nn.Module, *, send: bool = True) -> None:
        self.model = policy

    def sample(
        self, prompts: Sequence[Sequence[int]], settings: SampleSettings, finished: Finished | None = None
    ) -> list[Rollout]:
        return sample(self.model, prompts, settings, finished, cache_tokens=self.cache_tokens, stems=self.stems)


class Served:
    """vLLM servers on this machine, or ones that see its files: weights are pushed by path, by way of `folder`.

    The head of their model has so many `rows`.
    """

    remote: ClassVar[bool] = True

    def __init__(self, servers: Sequence[Server], folder: Path, rows: int) -> None:
        self.fleet = Fleet(servers, lambda server: self._load([server]), rows=rows)
        self.folder = folder
        self._source: nn.Module | str = ""

    def follow(self, policy: nn.Module, *, send: bool = True) -> None:
        """Write the weights, adapters merged, have the servers read them, and forget the files.

        A process that does not `send` still gives them to a server that was away.
        """
        self._source = policy
        if send:
            self._load(self.fleet.servers)

    def follow_directory(self, snapshot: str) -> None:
        """Have the servers read a directory of whole weights themselves."""
        self._source = snapshot
        self._load(self.fleet.servers)

    def _load(self, servers: Sequence[Server]) -> None:
        if isinstance(self._source, str):
            for server in servers:
                server.load(self._source)
            return
        with tempfile.TemporaryDirectory(prefix=".weights-", dir=self.folder.resolve()) as written:
            Path(written).chmod(0o755)  # a server may be another user's process
            merged(self._source).save_pretrained(written)
            for server in servers:
                server.load(written)

    def sample(
        self, prompts: Sequence[Sequence[int]], settings: SampleSettings, finished: Finished | None = None
    ) -> list[Rollout]:
        return self.fleet.sample(prompts, settings, finished)


def open_engine(
    where: str, policy: Any, folder: Path, most: tuple[int, str] = (0, ""), *, cache_tokens: int = CACHED
) -> Engine:
    """The engine of `--engine`: this process where it is empty, else the servers at these addresses.

    `most` are the tokens that prompt and reply may have, and the knobs that say so. BadInput where a server is silent
    or reads less.
    """
    if not where:
        return InProcess(policy, cache_tokens)
    return Served(servers_at(where, *most), folder, policy.config.get_text_config().vocab_size)
