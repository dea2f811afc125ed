"""The gate of rounds: which of its bounds are on head-to-head wins, on loss, and on what `accord evaluate` measures.

`win/CRITERION` is how often the candidate's reply wins against the incumbent's, `win_first/CRITERION` against the first
snapshot's; behind either `/worst_group` asks it of every value group. All changes are measured from the first snapshot,
so that many small steps down are seen.
"""

from dataclasses import replace
from typing import Any

from accord.errors import BadInput, did_you_mean
from accord.evaluation.gate import GateBound
from accord.evaluation.metrics import METRICS
from accord.evaluation.promotion import WORST_GROUP, of_round
from accord.records import Prompt, slice_names
from accord.stages.gate import Gate, read_gate
from accord.stages.online.config import Online

OPPONENTS = {"win": "incumbent", "win_first": "first"}
LOSS = "loss"
PER_REPLY = ("cost/NAME", "cost/NAME/unsafe", "cost/NAME/expected")


def read_round_gate(config: Online, first: str) -> Gate:
    """The gate of a run; `first` is the evaluation of the first snapshot, which every change is measured from.

    Raises BadInput for what can be known to be wrong before anything is drawn.
    """
    gate = read_gate(config.gate, first)
    for bound in gate.bounds:
        at = f"{gate.path}: bounds.{bound.name}"
        if bound.against not in ("", first):
            raise BadInput(f"{at}.against: rounds measure every change from the first snapshot; leave it out")
        _check_metric(config, bound, at)
    if gate.bounds and not any(bound.metric.startswith("win/") for bound in gate.bounds):
        raise BadInput(
            f"{gate.path}: no bound on win/{config.criterion}; a policy is promoted for its wins over the incumbent"
        )
    if config.eval_data and not any(bound.metric == LOSS for bound in gate.bounds):
        raise BadInput(f"--eval_data has no effect: {gate.path} has no bound on loss; add one, or leave it out")
    return gate


def _check_metric(config: Online, bound: GateBound, at: str) -> None:
    kind, _, rest = bound.metric.partition("/")
    if kind in OPPONENTS:
        criterion = criterion_of(bound)
        if not criterion or "/" in criterion:
            raise BadInput(f"{at}.metric: write {kind}/CRITERION or {kind}/CRITERION{WORST_GROUP}")
        if bound.against or not 0 < bound.limit < 1:
            raise BadInput(f"{at}: a win rate lies between 0 and 1; ask at_least, such as 0.5")
    elif bound.metric == LOSS:
        if not config.eval_data:
            raise BadInput(f"{at}.metric: the loss of what? give demonstrations by --eval_data SOURCE")
    elif kind == "cost":
        name = rest.split("/")[0]
        if name not in config.costs:
            near = did_you_mean(name, config.costs)
            raise BadInput(f"{at}.metric: no cost model {name!r} is there for the gate{near}; add --costs.{name} DIR")
    else:
        known = [*PER_REPLY, LOSS, "length", *(name for name in METRICS if name.startswith("gold/"))]
        known += ["win/CRITERION", "win_first/CRITERION"]
        if bound.metric not in known:
            raise BadInput(
                f"{at}.metric: rounds measure no {bound.metric!r}{did_you_mean(bound.metric, known)}; they measure "
                + ", ".join(known)
            )


def criterion_of(bound: GateBound) -> str:
    """What a bound on wins is judged under."""
    return bound.metric.partition("/")[2].removesuffix(WORST_GROUP)


def opponent_of(bound: GateBound) -> str:
    """Whom the candidate meets for a bound; empty where it is not about wins."""
    return OPPONENTS.get(bound.metric.partition("/")[0], "")


def on_wins(gate: Gate) -> list[GateBound]:
    """The bounds that are judged head to head."""
    return [bound for bound in gate.bounds if opponent_of(bound)]


def criteria_by_opponent(gate: Gate) -> dict[str, list[str]]:
    """Under which criteria the candidate meets whom."""
    found: dict[str, list[str]] = {}
    for bound in on_wins(gate):
        named = found.setdefault(opponent_of(bound), [])
        if criterion_of(bound) not in named:
            named.append(criterion_of(bound))
    return found


def in_round(config: Online, bound: GateBound, number: int) -> GateBound:
    """A bound with the part of the error that a round has."""
    return of_round(bound, number, config.rounds, config.spending)


def is_on(bound: GateBound, prompt: Prompt) -> bool:
    """Whether a prompt is of the slices of a bound."""
    return bound.slices == "all" or prompt.slice in slice_names(bound.slices)


def gate_of_evaluation(config: Online, gate: Gate, number: int) -> dict[str, Any]:
    """The bounds that `accord evaluate --gate` decides in a round, as its file has them; empty where there are none."""
    rest = [bound for bound in gate.bounds if not opponent_of(bound) and bound.metric != LOSS]
    bounds = {bound.name: _as_written(in_round(config, bound, number)) for bound in rest}
    return {"bounds": bounds} if bounds else {}


def _as_written(bound: GateBound) -> dict[str, Any]:
    asked = ("change_" if bound.against else "") + bound.side.replace(" ", "_")
    written = {"metric": bound.metric, "slice": bound.slices, "confidence": bound.confidence, asked: bound.limit}
    return written | ({"against": bound.against} if bound.against else {})


def loss_bounds(config: Online, gate: Gate, number: int) -> list[GateBound]:
    """The bounds on language-model loss, by demonstration."""
    return [replace(in_round(config, b, number), slices="all") for b in gate.bounds if b.metric == LOSS]
