"""What was measured of a labeler (`accord constitution --make calibration`), and whether it is what is asked here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accord.disk import read_json
from accord.errors import BadInput
from accord.evaluation.calibration import Isotonic

# method → what makes a measured logit of a logit; without a measurement there are none, and logits stay as they are
Maps = Mapping[str, Callable[[float], float]]


def read_calibration(where: str, asked: Mapping[str, Any], mapping: str = "temperature") -> Maps:
    """The maps by method that a run of `--make calibration` found; none without a run.

    `asked` is what makes a labeler another one, `mapping` temperature, or isotonic for the margin of a whole pair.
    Raises BadInput where another was measured, or one that knows nothing.
    """
    if not where:
        return {}
    told = read_json(Path(where) / "calibration.json")
    for key, value in asked.items():
        if told["asked"].get(key) != value:
            raise BadInput(
                f"--calibration {where}: measured with another {key} ({told['asked'].get(key)!r}, not {value!r}); "
                "measure this judge, asked in this way: --make calibration"
            )
    for method, temperature in told["temperatures"].items():
        if temperature is None:
            raise BadInput(f"--calibration {where}: by {method} the judge is no better than chance")
    return {method: MAPPINGS[mapping](told, method) for method in told["temperatures"]}


def _by_temperature(told: Mapping[str, Any], method: str) -> Callable[[float], float]:
    temperature = float(told["temperatures"][method])
    return lambda logit: logit / temperature


def _by_isotonic(told: Mapping[str, Any], method: str) -> Callable[[float], float]:
    found = told["isotonic"]["maps"][method]
    fitted = Isotonic(tuple(found["margins"]), tuple(found["probabilities"]))
    return lambda logit: float(fitted.logits([logit])[0])


MAPPINGS: dict[str, Callable[[Mapping[str, Any], str], Callable[[float], float]]] = {
    "temperature": _by_temperature,
    "isotonic": _by_isotonic,
}


def measured(logit: float, method: str, maps: Maps) -> float:
    """A logit as it was measured for its method; as it is where none was measured."""
    if not maps:
        return logit
    if method not in maps:
        raise BadInput(f"a label was had by {method}, and --calibration measured {', '.join(maps)}; measure both")
    return maps[method](logit)
