"""The roles of policy optimisation that give numbers to replies: scorers of conversations, and critics."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from accord.config import Adapters
from accord.engine.forward.adapters import bare, is_adapted
from accord.engine.forward.causal import hidden_states
from accord.engine.packing import Packing
from accord.models.loading import add_adapters, load_scalar
from accord.models.scalar import keep_head, new_scalar, values
from accord.models.scorers import ConversationScorer


class Critics(nn.Module):
    """One value per token and signal: V at the position that predicts the token."""

    names: tuple[str, ...]

    def parts(self) -> list[nn.Module]:
        """What is clipped by its own gradient norm: no signal's critic may slow another's."""
        return [self]

    def values(self, policy: nn.Module, packing: Packing, hidden: Tensor | None = None) -> dict[str, Tensor]:
        """Values (R,) of every signal at the packing's rows; `hidden` are the policy's there, if known."""
        raise TypeError("a kind of critic computes values")


class SeparateCritics(Critics):
    """A model per signal, started from its scorer (or from the policy where tokenizers differ)."""

    def __init__(self, modules: Mapping[str, nn.Module], shifts: Mapping[str, tuple[float, float]]) -> None:
        super().__init__()
        self.names = tuple(modules)
        self.models = nn.ModuleDict(dict(modules))
        self._shifts = dict(shifts)

    def parts(self) -> list[nn.Module]:
        return list(self.models.values())

    def values(self, policy: nn.Module, packing: Packing, hidden: Tensor | None = None) -> dict[str, Tensor]:
        out = {}
        for name in self.names:
            shift, scale = self._shifts[name]
            out[name] = (values(self.models[name], packing) - shift) / scale
        return out


class SharedCritics(Critics):
    """Value heads on the policy's own trunk: no second forward pass, but their gradient reaches the policy."""

    def __init__(self, names: Sequence[str], width: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.heads = nn.Linear(width, len(self.names))
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def values(self, policy: nn.Module, packing: Packing, hidden: Tensor | None = None) -> dict[str, Tensor]:
        out = self.heads(hidden_states(policy, packing) if hidden is None else hidden).float()
        return {name: out[:, i] for i, name in enumerate(self.names)}


def make_critics(
    kind: str,
    snapshot: str,
    policy: nn.Module,
    starts: Mapping[str, ConversationScorer],
    seed: int,
    adapters: Adapters | None = None,
) -> Critics:
    """Critics of the signals in `starts`, each with the scorer it starts from; with `adapters` these are trained.

    A scorer that is an adapter already goes on with its own.
    """
    if kind == "shared":
        return SharedCritics(list(starts), bare(policy).config.hidden_size)
    modules, shifts = {}, {}
    for name, scorer in starts.items():
        if scorer.renderer is None:
            start = load_scalar(scorer.where, role=scorer.role, trainable=True, on=scorer.on)
            modules[name] = keep_head(start, scorer.heads.index(scorer.read[0]))
            normalizer = scorer.members[0][scorer.read[0]]
            # near zero 2σ(C) − 1 is C / 2; values must not be squashed, returns carry KL too
            shifts[name] = (0.0, 2.0) if normalizer.kind == "sign-probability" else (normalizer.shift, normalizer.scale)
        else:
            modules[name] = new_scalar(snapshot, name, seed)
            shifts[name] = (0.0, 1.0)
        if adapters is not None and not is_adapted(modules[name]):
            modules[name] = add_adapters(modules[name], adapters, scalar=True, seed=seed)
    return SeparateCritics(modules, shifts)
