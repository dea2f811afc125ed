"""The whole flow on the gold world at a size of seconds: `demo`, and claims on cells of the same flow."""

import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from accord.claims.lab import cells, recipes
from accord.claims.lab.contract import Part, recomputed, verdict_of
from accord.claims.lab.recipes import Scale
from accord.claims.lab.workers import run_stage, with_threads
from accord.cli import main
from accord.disk import read_lines
from accord.evaluation.statistics import Interval
from accord.reporting import figures
from accord.run import verify
from accord.stages.demo import run as demo
from accord.stages.demo.run import FOLDERS
from tests.fixtures.toys import people_choose

# so many prompts that a tenth of their safety labels calibrates a cost
TOY = Scale("nano", 200, 6, 60, 100, 60, 300, 100, 2, 8, 4, "f32")
WHOLE = Scale("nano", 400, 20, 60, 300, 60, 500, 200, 2, 8, 6, "f32")  # of the slow test
# the process that hands out the stages starts at once: it does without what its workers import
AGAIN = """
import json, sys
from accord.claims.lab import recipes
from accord.cli import main
from accord.reporting import figures
from accord.stages.demo import run as demo
from tests.fixtures.toys import people_choose
recipes.SCALES["small"] = recipes.Scale(*json.loads(sys.argv[2]))
figures._svg = lambda canvas, label: '<svg role="img"></svg>'
demo.available_cores = lambda: 1
people_choose()
assert main(["demo", "--out", sys.argv[1], "--threads", "1", "--resume"]) == 0
sys.exit("torch" in sys.modules)
"""


class Here:
    """Workers that are this process: what processes of their own do is seen in tests/claims/test_workers.py."""

    def run(self, jobs, until=math.inf):
        for stage, config in jobs:
            run_stage(stage, with_threads(config, 1))
        return 0

    def run_spread(self, job):
        self.run([job])


@pytest.fixture(scope="module")
def toy():
    with pytest.MonkeyPatch.context() as patch:
        people_choose(patch.setattr)
        patch.setattr(figures, "_svg", lambda canvas, label: '<svg role="img"></svg>')
        patch.setitem(recipes.SCALES, "small", TOY)
        yield


def shown_by(out):
    """What the demo prints, after it has run into a folder."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["demo", "--out", str(out), "--threads", "1"]) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def claims(toy, tmp_path_factory):
    """A folder of claims whose base is the folder of a demo, and what that printed."""
    root = tmp_path_factory.mktemp("claims")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "Workers", lambda threads: nullcontext(Here()))
        patch.setattr(demo, "available_cores", lambda: 1)
        yield root, shown_by(cells.Cells(root, "small").flow(0).root)


@pytest.mark.slow
def test_demo_runs_in_processes_of_its_own(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.SCALES, "small", WHOLE)
    check(out := tmp_path / "demo", shown_by(out))
    nothing_is_run_again(out, WHOLE)


def test_demo_runs_the_flow_and_writes_a_report_that_stands_alone(claims):
    root, printed = claims
    (out,) = root.glob("gold-small-0-*")
    check(out, printed)
    nothing_is_run_again(out, TOY)


def nothing_is_run_again(out, scale):
    """What is finished stays as it is."""
    before = (out / "ppo" / "lineage.json").stat().st_mtime_ns
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    line = [sys.executable, "-c", AGAIN, str(out), json.dumps(astuple(scale))]
    subprocess.run(line, check=True, env=env)
    assert (out / "ppo" / "lineage.json").stat().st_mtime_ns == before


def check(out, printed):
    assert "gold harm on held-out objects" in printed
    for slice in ("harmful", "red-team", "harmful-held-out", "red-team-held-out"):
        assert f"gold share of unsafe replies, {slice}: SFT " in printed
    for model in ("helpful", "harmless"):
        (line,) = [line for line in printed.splitlines() if line.strip().startswith(f"{model} model: ")]
        assert "length alone" in line and "a bag of words" in line and "(the truth itself " in line
    assert str(out / "report.html") in printed
    page = (out / "report.html").read_text()
    assert "<svg" in page and 'src="http' not in page and 'href="http' not in page
    for stage in (*FOLDERS, "evaluate-limited"):
        verify(out / stage)
    labels = (out / "annotate" / "judgements-harmless.jsonl").read_text().splitlines()
    compared, judged = (
        {row["slice"] for row in read_lines(out / "annotate" / f"{kind}-harmless.jsonl")}
        for kind in ("comparisons", "judgements")
    )
    assert compared == {"harmful", "red-team"} and judged == {*compared, "look-alike"}
    assert {json.loads(line)["value"] for line in labels} == {0.0, 1.0}


def fewer(job):
    """The same job on a sixth of the thousands of prompts that `gates` asks of whatever scale."""
    stage, config = job
    if stage != "evaluate":
        return job
    data = {name: re.sub(r"(?<=count=)\d+000\b", lambda n: str(int(n[0]) // 6), s) for name, s in config.data.items()}
    return stage, config.model_copy(update={"data": data})


def test_claims_run_on_shared_cells_and_write_their_pages(claims, monkeypatch):
    """On those that the demo has left: none of them is run again."""
    out, ran = claims[0], []
    here = Here()
    monkeypatch.setattr(here, "run", lambda jobs, until: ran.extend(jobs) or Here().run(map(fewer, jobs)))
    monkeypatch.setattr(cells, "Workers", lambda: nullcontext(here))
    assert main(["claims", "pipeline", "demo", "gates", "--seeds", "1", "--out", str(out)]) == 0
    assert not {Path(config.out).name for _, config in ran} & set(FOLDERS)
    bases = list(out.glob("gold-small-0-*"))
    assert len(bases) == 1, "all claims stand on one base"
    for name in ("pipeline", "demo", "gates"):
        result = json.loads((out / "results" / f"{name}.json").read_text())
        keys = {"claim", "source", "statistic", "rule", "value", "interval", "seeds", "n", "verdict", "config_hash"}
        assert keys < set(result) and result["seeds"] == [0]
        assert result["parts"] and recomputed(result) == []
        assert result["rule"] in (out / "results" / f"{name}.md").read_text()


def test_claims_end_by_the_clock(toy, tmp_path, monkeypatch, capsys):
    """What is finished stands; the first cell that is left ends the claim, without a page and without an error."""
    asked = []
    here = SimpleNamespace(run=lambda jobs, until: asked.append(until) or len(jobs))
    monkeypatch.setattr(cells, "Workers", lambda: nullcontext(here))
    before = time.time()
    assert main(["claims", "gates", "demo", "--seeds", "1", "--minutes", "0.5", "--out", str(tmp_path / "claims")]) == 0
    assert len(asked) == 1 and before + 30 <= asked[0] <= time.time() + 30
    assert "goes on from here" in capsys.readouterr().out
    assert not (tmp_path / "claims" / "results").exists()


def test_seeds_of_development_and_of_verdicts_do_not_mix(capsys):
    assert main(["claims", "pipeline", "--seeds", "3", "--first_seed", "8"]) == 2
    assert "do not mix" in capsys.readouterr().err
    assert main(["claims", "piepline"]) == 2
    assert "did you mean pipeline" in capsys.readouterr().err


def test_a_verdict_holds_only_when_the_whole_interval_is_on_the_side_asked_for():
    def part(low, high, direction):
        return Part("x", Interval((low + high) / 2, low, high, 100), 0.0, direction)

    assert part(0.1, 0.3, "above").verdict == "holds"
    assert part(0.1, 0.3, "below").verdict == "fails"
    assert part(-0.1, 0.3, "above").verdict == "undecided"
    assert part(-0.3, -0.1, "below").verdict == "holds"
    # mean 0.1, half width 0.2: four times the units halve the width, and the interval just clears 0
    assert part(-0.1, 0.3, "above").deciding_n in (400, 401)
    assert verdict_of([part(0.1, 0.3, "above"), part(-0.1, 0.3, "above")]) == "undecided"
    assert verdict_of([part(-0.1, 0.3, "above"), part(0.1, 0.3, "below")]) == "fails"
