"""`accord evaluate rewards`: preference and cost models on benchmarks, from a file to the report."""

import json

import pytest
import torch

from accord.cli import main
from accord.disk import read_json
from accord.engine.texts import text_group
from accord.labelers.journal import Journal
from accord.labelers.local import LocalLabeler
from accord.labelers.preferences import logit
from accord.labelers.questions import ENGLISH
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.records import Comparison, Prompt, Turn
from accord.run import verify
from accord.stages.evaluate import judges, preference
from accord.training import distributed


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ask(out, *words):
    return main(["evaluate", "rewards", "--out", str(out), "--max_length", "64", *map(str, words)])


def test_models_are_asked_and_a_cost_prefers_the_less(commands, tmp_path):
    pairs = [
        {"prompt": f"ask {n}", "chosen": f"the cat {n}", "rejected": f"a dog {n}", "subset": "xy"[n % 2]}
        for n in range(12)
    ]
    styles = [
        {"prompt": f"say {n}", "chosen": ["cat", "the cat", "the cat runs"], "rejected": ["dog", "a dog", "a dog runs"]}
        for n in range(6)
    ]
    sets = [
        f"--sets.pairs={write(tmp_path / 'pairs.jsonl', pairs)}",
        f"--sets.styles={write(tmp_path / 's.jsonl', styles)}",
    ]
    models = [f"--models.{name}={commands.snapshots / name}" for name in ("reward", "cost")]
    assert ask(tmp_path / "run", *sets, *models) == 0
    verify(tmp_path / "run")
    rows = read_json(tmp_path / "run" / "evaluation.json")["rewards"]
    assert [(r["set"], r["model"], r["subset"]) for r in rows] == [
        *(("pairs", name, subset) for name in ("reward", "cost") for subset in ("all", "x", "y")),
        *(("styles", name, "all") for name in ("reward", "cost")),
    ]
    for name, role, sign in (("reward", "preference", 1), ("cost", "cost", -1)):
        where = str(commands.snapshots / name)
        scorer, renderer = Scorer(where, role=role, device=torch.device("cpu")), load_renderer(where)
        right = 0
        for row in pairs:
            prompt = Prompt((Turn("user", row["prompt"]),), "", "")
            group = text_group(renderer, prompt, (row["chosen"], row["rejected"]))
            a, b = scorer.raw_scores([group], micro_tokens=1000).tolist()
            right += sign * (a - b) > 0
        found = next(r for r in rows if (r["set"], r["model"], r["subset"]) == ("pairs", name, "all"))
        assert found["answered"]["mean"] == pytest.approx(right / 12) and found["chance"] == 0.5
    styled = rows[-1]
    mean = (3 * styled["hard"]["mean"] + 3 * styled["normal"]["mean"] + 3 * styled["easy"]["mean"]) / 9
    assert styled["answered"]["mean"] == pytest.approx(mean) and styled["length"]["better_is_longer"]["n"] > 0
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Preference models on benchmarks" in page and "hard pairs" in page


def test_what_cannot_be_asked_is_refused_by_its_name(commands, tmp_path, capsys):
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    model, policy = f"--models.a={commands.snapshots / 'reward'}", f"--models.a={commands.snapshots / 'policy'}"
    for line, words in (
        ([model], "nothing to ask; give --sets.NAME FILE"),
        ([f"--sets.a={pairs}"], "nothing to measure; give --models.NAME DIR, or --labelers.NAME WHERE"),
        ([f"--sets.a={pairs}", model, "--labelers.a", "x"], "a is one of --models and of --labelers"),
        ([f"--sets.a={pairs}", policy], "is a policy"),
        ([f"--sets.a={tmp_path / 'gone.jsonl'}", model], "gone.jsonl"),
    ):
        assert ask(tmp_path / "run", *line) == 2
        err = capsys.readouterr().err
        assert words in err and "Traceback" not in err


HHH_SIDES = (("correct", "the cat"), ("incorrect", "a dog"))


@pytest.fixture
def published(tmp_path):
    """A file in the shape of each set that a labeler is measured on."""
    hhh = [
        {"prompt": f"ask {n} (A) a dog {n} (B) the cat {n}", "corrects": [" (B)"], "incorrects": [" (A)"]}
        | {f"text_{o}": f"\n\nHuman: ask {n}\n\nAssistant: {t} {n}" for o, t in HHH_SIDES}
        for n in range(6)
    ]
    relabelled = [
        {"prompt": f"Human: ask {n}", "responses": [f" the cat {n}", f" a dog {n}"], "label": 0, "original_label": 1}
        | {side: f"Human: ask {n}\n\nAssistant: {t} {n}" for side, t in (("chosen", "the cat"), ("rejected", "a dog"))}
        for n in range(6)
    ]
    bar = [{"input": f"ask {n}", "output_1": f"a dog {n}", "output_2": f"the cat {n}", "label": 2} for n in range(6)]
    rows = {"hhh": hhh, "relabelled": relabelled, "llmbar": bar}
    return [f"--sets.{name}={write(tmp_path / f'{name}.jsonl', own)}" for name, own in rows.items()]


@pytest.mark.parametrize("question", ["choice", "yes-no", pytest.param("score", marks=pytest.mark.slow)])
def test_a_labeler_is_asked_by_the_same_command(question, published, commands, tmp_path, capsys):
    where = commands.snapshots / "policy"
    line = [*published, f"--labelers.judge={where}", f"--models.pm={commands.snapshots / 'reward'}"]
    assert ask(tmp_path / "run", *line, "--question", question, "--criterion", "harmless") == 0
    rows = {(r["set"], r["model"]): r for r in read_json(tmp_path / "run" / "evaluation.json")["rewards"]}
    label = f"judge, asked by {question}"
    assert set(rows) == {(name, m) for name in ("hhh", "relabelled", "llmbar") for m in (label, "pm")}
    with Journal(tmp_path / "own.jsonl") as journal:
        labeler = LocalLabeler(str(where), distributed.start(1), journal)
        right, by_place = 0, [0, 0]
        for n in range(6):
            turns, texts = (Turn("user", f"ask {n}"),), (f"the cat {n}", f"a dog {n}")
            if question == "choice":
                asked = "Which of these replies is less harmful, to the user and to others?"
                orders = [ENGLISH.about_two(turns, *pair, asked, "harmless") for pair in (texts, texts[::-1])]
                straight, turned = (answer.probabilities for answer in labeler.ask(orders))
                margin = (logit(straight[0]) - logit(turned[0])) / 2
                by_place = [by_place[0] + (straight[0] > 0.5), by_place[1] + (turned[0] < 0.5)]
            else:
                words = "Is the reply harmless?" if question == "yes-no" else "How harmless is the reply?"
                told = labeler.ask([ENGLISH.about_one(question, turns, text, words, "harmless") for text in texts])
                places = range(2) if question == "yes-no" else range(5)
                one, other = (sum(i * p for i, p in zip(places, a.probabilities, strict=True)) for a in told)
                margin = other - one if question == "yes-no" else one - other
            right += margin > 0
    for name in ("hhh", "relabelled", "llmbar"):
        assert rows[name, label]["answered"]["mean"] == pytest.approx(right / 6)
        if question == "choice":
            assert [rows[name, label][f"right_{place}"] for place in ("first", "last")] == [k / 6 for k in by_place]
    found = rows["llmbar", label]
    assert found["unanswered"] == {} and ("same_place" in found) == (question == "choice")
    assert (tmp_path / "run" / "journal.jsonl").exists()


def test_knobs_of_labelers_need_one(published, commands, tmp_path, capsys):
    model = f"--models.pm={commands.snapshots / 'reward'}"
    assert ask(tmp_path / "run", *published, model, "--question", "score") == 2
    assert "--question has no effect without --labelers.NAME WHERE" in capsys.readouterr().err
    assert ask(tmp_path / "run", *published, model, "--criterion", "kind") == 2
    assert "--criterion has no effect" in capsys.readouterr().err
    assert ask(tmp_path / "run", *published, model, "--allow_local", "true") == 2
    assert "--allow_local has no effect without --labelers.NAME PROTOCOL:URL#MODEL" in capsys.readouterr().err


def test_a_labeler_is_asked_in_parts_and_its_progress_is_told(monkeypatch):
    told, asked = [], []

    class Counts:
        name = key = "counts"

        def ask(self, questions):
            asked.append(list(questions))
            return [f"answer to {question}" for question in questions]

    monkeypatch.setattr(judges.Progress, "update", lambda self, done, numbers: told.append((self.what, done)))
    watched = judges.Watched("tiny", Counts())
    assert watched.ask(range(100)) == [f"answer to {number}" for number in range(100)]
    assert [len(part) for part in asked] == [64, 36] and (watched.name, watched.key) == ("counts", "counts")
    assert told == [("labelers.tiny", 64), ("labelers.tiny", 100)]
    assert watched.ask([]) == []


def test_a_model_scores_in_parts_and_its_progress_is_told(monkeypatch, snapshots):
    judge = preference.Judge(str(snapshots / "reward"), None, torch.device("cpu"))
    prompts = [Prompt((Turn("user", f"why {n}"),), "a", "") for n in range(5)]
    groups = judge.groups([Comparison(p, ("yes", "no"), (1, 2), "helpful", "anyone", 0.0, (0, 1)) for p in prompts])
    (whole,) = judge.scores(groups, 1024).values()
    told = []
    monkeypatch.setattr(preference, "PART", 2)
    monkeypatch.setattr(preference.Progress, "update", lambda self, done, numbers: told.append(done))
    (parts,) = judge.scores(groups, 1024).values()
    assert told == [2, 4, 5]
    torch.testing.assert_close(torch.tensor(parts), torch.tensor(whole))
    assert judge.scores([], 1024) == {head: [] for head in judge.scorers}
