"""The agreement half of decoupling: people of two groups who compare the same pairs, made up and not sampled."""

import functools
import json
from pathlib import Path

import pytest

from accord import world
from accord.claims import fused_questions
from accord.claims.lab.cells import Cells
from accord.claims.lab.recipes import SCALES, GoldFlow
from accord.data.rows import reply_row
from accord.stages.sample.config import Sample


class Scripted:
    """Cells that train nothing: a sample run holds scripted replies."""

    def __init__(self, root):
        self.root = root

    def flow(self, seed):
        return GoldFlow(self.root / str(seed), SCALES["small"], seed, True)

    tuned = Cells.tuned

    def run(self, configs):
        for config in (config for config in configs if isinstance(config, Sample)):
            folder = Path(config.out)
            folder.mkdir(parents=True)
            said = world.comparisons(count=900, seed=config.seed, criterion="overall")
            said = [one for one in said if one.prompt.slice in ("harmful", "red-team")]
            rows = [reply_row(one.prompt, reply) for one in said for reply in one.replies]
            (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(fused_questions, "PAIRS", 150)


def test_people_who_value_differently_agree_more_on_separate_questions(tmp_path, few):
    finding = fused_questions.measure(Scripted(tmp_path), [0, 1, 2])
    (part,) = finding.parts
    assert all(value > 0.05 for value in part.interval.values) and len(finding.notes) == 3
    assert "α under overall" in finding.notes[0] and "<svg" in finding.figure


def test_people_of_one_mind_who_never_err_agree_on_every_question(tmp_path, few, monkeypatch):
    cells = Scripted(tmp_path)
    cells.run([cells.flow(0).sample_harm()])
    pairs = fused_questions.pairs_of(Path(cells.flow(0).sample_harm().out))
    exact = functools.partial(world.Annotator, temperature=0.0, flips=0.0, notice=1.0)
    monkeypatch.setattr(fused_questions, "Annotator", exact)
    monkeypatch.setattr(fused_questions, "GROUPS", ("mixed",))
    found = fused_questions.alphas(pairs, 0)
    assert found == {"overall": pytest.approx(1), "helpful": pytest.approx(1), "harmless": pytest.approx(1)}
