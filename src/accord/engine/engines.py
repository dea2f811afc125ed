"""Engines: prompts → rollouts, in this process on the model's own weights, or by a server that the weights are sent to.

Both give the same: token ids in, token ids and the log-probs they were drawn at out, each reply's random numbers a
function of the seed and its prompt's number.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import nn

from accord.engine.decode.draw import Finished, SampleSettings
from accord.engine.decode.sampler import CACHED, sample
from accord.engine.decode.stems import Stems
from accord.engine.forward.adapters import merged
from accord.engine.remote.fleet import Fleet, ServerAway
from accord.engine.remote.vllm import Server, servers_at
from accord.records import Rollout


class Engine(Protocol):
    """What draws replies. One that is `remote` leaves this process idle while it does."""

    remote: ClassVar[bool]

    def follow(self, policy: nn.Module) -> None:
        """Draw from this policy, as it is now."""

    def sample(
        self, prompts: Sequence[Sequence[int]], settings: SampleSettings, finished: Finished | None = None
    ) -> list[Rollout]:
        """`settings.n` rollouts per prompt, prompt by prompt; `finished` hears of a prompt's once it has the last."""

    def close(self) -> None:
        """Leave nothing behind. It may be called again."""


@dataclass
class InProcess:
    """The trainer's own weights: nothing is copied and nothing sent. `cache_tokens` bounds the cache.

    Of a model that is not trained, `stems` keeps what its prompts begin with.
    """

    remote: ClassVar[bool] = False
    model: nn.Module
    cache_tokens: int = CACHED
    stems: Stems | None = None

    def follow(self, policy: nn.Module) -> None:
        self.model = policy

    def sample(
        self, prompts: Sequence[Sequence[int]], settings: SampleSettings, finished: Finished | None = None
    ) -> list[Rollout]:
        return sample(self.model, prompts, settings, finished, cache_tokens=self.cache_tokens, stems=self.stems)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Pushed:
    """The directory of the weights that servers were last told to read, and the addresses of those that were away."""

    directory: str = ""
    missed: frozenset[str] = frozenset()


class Served:
    """vLLM servers on this machine, or ones that see its files: weights are pushed by path, by way of `folder`.

    The head of their model has so many `rows`. `pushed` is what every process that asks them has to know.
    """

    remote: ClassVar[bool] = True

    def __init__(self, servers: Sequence[Server], folder: Path, rows: int) -> None:
        self.fleet = Fleet(servers, self._make_ready)
        self.folder, self.rows = folder, rows
        self.pushed = Pushed()
        self._forget: Callable[[], object] = lambda: None  # the files that were written

    def follow(self, policy: nn.Module) -> None:
        """Write the weights, adapters merged, and have the servers read them.

        The files stay until others follow: a server that comes back in between reads them, whatever the policy is by
        then.
        """
        before, written = self._forget, tempfile.mkdtemp(prefix=".weights-", suffix=".part", dir=self.folder.resolve())
        self._forget = weakref.finalize(self, shutil.rmtree, written, True)
        Path(written).chmod(0o755)  # a server may be another user's process
        merged(policy).save_pretrained(written)
        self.follow_directory(written)
        before()

    def follow_directory(self, snapshot: str) -> None:
        """Have the servers read a directory of whole weights themselves; one that is away reads it when it is back."""
        missed = set()
        for server in self.fleet.servers:
            try:
                server.load(snapshot)
            except ServerAway:
                missed.add(server.url)
        self.pushed = Pushed(snapshot, frozenset(missed))

    def sample(
        self, prompts: Sequence[Sequence[int]], settings: SampleSettings, finished: Finished | None = None
    ) -> list[Rollout]:
        numbers = settings.numbered(len(prompts))

        def ask(server: Server, place: int) -> list[Rollout]:
            if server.url in self.pushed.missed:
                raise ServerAway(f"{server.url} has not read the present weights", 0, 0.0)
            return server.ask(settings, prompts[place], numbers[place], self.rows)

        return [rollout for replies in self.fleet.each(len(prompts), ask, finished) for rollout in replies]

    def close(self) -> None:
        self._forget()

    def _make_ready(self, server: Server) -> None:
        if self.pushed.directory:
            server.load(self.pushed.directory)
        self.pushed = replace(self.pushed, missed=self.pushed.missed - {server.url})


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
