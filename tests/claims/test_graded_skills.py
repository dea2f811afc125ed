"""The claim about graded skills on made-up replies whose share of right answers is known."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from accord import world
from accord.claims import graded_skills
from accord.claims.lab.ladder import SIZES
from accord.claims.lab.recipes import SCALES, GoldFlow
from accord.records import unit_hash
from accord.stages.evaluate.config import Evaluate
from accord.stages.sft.config import Sft

PARAMETERS = dict(zip(SIZES, (1000, 2718, 7389), strict=True))  # an e-fold from one to the next


prompts = functools.cache(world.prompts)


class Answered:
    """Cells that train nothing: a model of a size answers a grade right with the planted chance."""

    def __init__(self, root, chance):
        self.root, self.chance = root, chance

    def flow(self, seed):
        return GoldFlow(self.root / str(seed), SCALES["small"], seed, True)

    def run(self, configs):
        for config in configs:
            if isinstance(config, Evaluate):
                size = Path(config.out).name.removeprefix("graded-")
                Path(config.out).mkdir(parents=True)
                rows = [row for slice in config.data for row in self.rows(config, size, slice)]
                (Path(config.out) / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            elif isinstance(config, Sft):
                snapshot = Path(config.out) / "snapshot"
                snapshot.mkdir(parents=True)
                size = Path(config.out).name.removeprefix("sft-")
                save_file({"weight": np.zeros(PARAMETERS[size], np.uint8)}, snapshot / "model.safetensors")

    def rows(self, config, size, slice):
        for number, prompt in enumerate(prompts(300, config.seed, slice)):
            right = unit_hash(f"{config.seed} {size} {slice} {number}") < self.chance[size][int(slice[-1]) - 1]
            yield {"prompt": [turn._asdict() for turn in prompt.turns], "scores": {"gold/correct": float(right)}}


@pytest.mark.parametrize("separate", [True, False])
def test_sizes_and_grades_are_told_apart_where_they_differ(tmp_path, separate):
    steps = (0.0, 0.2, 0.4) if separate else (0.2, 0.2, 0.2)
    chance = {size: [0.6 - 0.12 * g + step for g in range(4)] for size, step in zip(SIZES, steps, strict=True)}
    finding = graded_skills.measure(Answered(tmp_path, chance), [0, 1, 2, 3, 4])
    parts = {part.name: part for part in finding.parts}
    part = parts["right answers over all grades per e-fold of parameters"]
    assert part.interval.mean == pytest.approx(0.2 if separate else 0.0, abs=0.04)
    assert (part.verdict == "holds") == separate
    (gained,) = (note for note in finding.notes if note.startswith("all grades, small less tiny: "))
    assert float(gained.split()[5]) == pytest.approx(0.2 if separate else 0.0, abs=0.04)
    harder = [part for name, part in parts.items() if "grade 1 less grade 4" in name]
    assert len(harder) == len(SIZES) and all(part.verdict == "holds" for part in harder)
    assert finding.figure.lstrip().startswith("<svg")
