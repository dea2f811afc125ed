"""What was measured of a labeler (`accord constitution --make calibration`), and whether it is what is asked here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accord.errors import BadInput
from accord.run import read_json


def read_temperatures(where: str, asked: Mapping[str, Any]) -> dict[str, float]:
    """The temperatures by method that a run of `--make calibration` found; none without a run.

    `asked` is what makes a labeler another one. Raises BadInput where another was measured, or one that knows nothing.
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
    return dict(told["temperatures"])


def cooled(logit: float, method: str, temperatures: Mapping[str, float]) -> float:
    """A logit divided by the temperature of its method; as it is where none was measured."""
    if not temperatures:
        return logit
    if method not in temperatures:
        raise BadInput(
            f"a label was had by {method}, and --calibration measured {', '.join(temperatures)}; measure both"
        )
    return logit / temperatures[method]
