"""`accord collect`: questions on fresh samples, the greeting, and the page over a real socket."""

import json
import re
import subprocess
import sys
import threading

import httpx2
import pytest
from pydantic import ValidationError

from accord.cli import main
from accord.data.rows import write_records
from accord.data.sources import read_comparisons
from accord.errors import BadInput
from accord.records import Turn
from accord.stages.collect import snapshots as snapshots_module
from accord.stages.collect.config import Collect
from accord.stages.collect.fresh import draw_items
from accord.stages.collect.run import ask, greeting, make_app
from accord.stages.collect.snapshots import Snapshots, Turns
from tests.fixtures.feedback import PASSWORD, prompt


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    write_records(path, [prompt(f"why the cat {word}") for word in ("runs", "sees", "bakes", "helps a dog " * 20)])
    return str(path)


def config_of(snapshots, prompts, **knobs):
    places = [str(snapshots / name) for name in ("policy", "other")]
    settings = {"snapshots": places, "criterion": ["helpful"], "data": prompts, "max_new_tokens": 8, "samples": 3}
    return Collect(**{**settings, **knobs})


def items_of(config):
    snapshots = Snapshots(config)
    return [item for mode in config.drawn for few in draw_items(config, mode, snapshots) for item in few]


def test_replies_of_several_snapshots_stand_beside_each_other(snapshots, prompts, capsys, monkeypatch):
    monkeypatch.setattr(snapshots_module, "most_positions", lambda config: 60)
    config = config_of(snapshots, prompts, overlap=2)
    items = items_of(config)
    assert items and "1 longer than a snapshot reads" in capsys.readouterr().out
    for item in items:
        assert len(item.replies) == len(set(item.replies)) == 3 and item.criteria == ("helpful",) and item.overlap == 2
        said = [json.loads(origin) for origin in item.origins]
        assert [where["snapshot"] for where in said] == [str(snapshots / n) for n in ("policy", "policy", "other")]
        assert said[0]["temperature"] == 1.0 and said[0]["seed"] == 0
    assert items == items_of(config), "the seed says what is drawn"


def test_the_first_question_waits_for_two_prompts_and_a_conversation_for_no_more(snapshots, tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_records(path, [prompt(f"why the cat {n}") for n in range(12)])
    asked = []

    class Counted(Snapshots):
        def draw(self, snapshot, conversations, share, **knobs):
            asked.append((len(conversations), knobs["first"]))
            return [[f"{knobs['first']} {n} {k}" for k in range(share)] for n in range(len(conversations))]

    for mode, wanted in (
        (["compare"], [(2, 0), (8, 2), (2, 10)]),
        (["compare", "chat"], [(2, n) for n in range(0, 12, 2)]),
    ):
        asked.clear()
        config = config_of(snapshots, str(path), mode=mode, samples=2)
        config = config.model_copy(update={"snapshots": config.snapshots[:1]})
        assert sum(map(len, draw_items(config, "compare", Counted(config)))) == 12
        assert asked == wanted


def test_a_snapshot_that_will_not_do_is_refused_before_anything_is_served(snapshots, tmp_path, capsys):
    store = tmp_path / "feedback.db"
    for name, why in (("reward", "a policy model is asked for"), ("nowhere", "nowhere")):
        words = ["--snapshots", str(snapshots / name), "--criterion", "helpful", "--database", str(store)]
        assert main(["collect", *words]) == 2
        assert why in capsys.readouterr().err and not store.exists()


def test_a_conversation_goes_before_questions_that_wait():
    """Questions are drawn, more of them wait, and a conversation comes last: it is next."""
    turns, order, first = Turns(), [], threading.Event()

    def draw(name, live):
        with turns.take(live=live):
            order.append(name)

    threads = [threading.Thread(target=draw, args=asked) for asked in (("more", False), ("talk", True))]
    with turns.take(live=False):
        for thread in threads:
            thread.start()
        while turns._waiting == 0:  # until the conversation has come
            first.wait(0.001)
    for thread in threads:
        thread.join()
    assert order == ["talk", "more"]


def test_one_reply_is_judged_alone(snapshots, prompts):
    items = items_of(config_of(snapshots, prompts, mode=["safety"], samples=2))
    assert items and {len(item.replies) for item in items} == {1}


def test_questions_come_onto_the_desk_of_the_page(snapshots, prompts, database, desk, capsys, tmp_path):
    config = config_of(snapshots, prompts)
    app = make_app(config.model_copy(update={"secret": str(tmp_path / "page.secret")}), database)
    ask(config, app, Snapshots(config), threading.Event())
    assert desk.progress(1)["wanted"] > 0 and "new questions" in capsys.readouterr().out
    lost = config_of(snapshots, prompts, data="nowhere.jsonl")
    ask(lost, app, Snapshots(lost), threading.Event())
    assert "no more questions: nowhere.jsonl" in capsys.readouterr().out


def test_the_admin_is_invited_until_there_is_one(tmp_path, database, join):
    config = Collect(database=str(tmp_path / "x.db"), secure=True, hosts=["label.example"], prefix="/accord")
    app = make_app(config, database)
    lines = greeting(config, app, 1)
    assert lines[0].startswith(f"{config.database}: https://label.example/accord/")
    assert [bool(re.search(r"https://label.example/accord/join/[\w-]{32}$", line)) for line in lines] == [
        False,
        True,
        True,
    ]
    join("Ada", role="admin")
    assert len(greeting(config, app, 1)) == 2


@pytest.mark.parametrize(
    "knobs, why",
    [
        ({"snapshots": ["a"]}, "give --criterion"),
        ({"criterion": ["helpful"]}, "no effect without --snapshots"),
        ({"snapshots": ["a"], "criterion": ["b"], "mode": ["edit"], "samples": 3}, "another number of replies"),
        ({"snapshots": ["a"], "criterion": ["b"], "mode": ["chat"], "overlap": 2}, "people begin themselves"),
        ({"snapshots": ["a"], "criterion": ["b"], "mode": ["chat"], "picks": "better"}, "without --mode redteam"),
        ({"pause_minutes": 9}, "without --harmful_in_a_row"),
        ({"check_share": 0.0, "check_right": 0.9}, "no check item is asked"),
        ({"mode": ["chat"]}, "no effect without --snapshots"),
        ({"prefix": "accord/"}, "write a path"),
        ({"host": "0.0.0.0"}, "--hosts NAME"),
    ],
)
def test_what_does_not_go_together_is_refused(knobs, why):
    with pytest.raises(ValidationError, match=why):
        Collect(**knobs)


def test_guidelines_that_cannot_be_read_are_refused(database, tmp_path):
    config = Collect(database=str(tmp_path / "x.db"), guidelines=str(tmp_path / "none.txt"))
    with pytest.raises(BadInput, match="--guidelines"):
        make_app(config, database)


def test_a_label_goes_from_a_browser_to_training_data(tmp_path):
    """The program in a process of its own: import, serve, join, answer, stop, read."""
    store, source = tmp_path / "feedback.db", tmp_path / "pairs.jsonl"
    source.write_text(json.dumps({"prompt": "q", "chosen": "x", "rejected": "y"}) + "\n")
    words = ["--database", str(store), "--data", str(source), "--criterion", "helpful"]
    assert main(["collect", "import", *words]) == 0
    command = [sys.executable, "-m", "accord", "collect", "--database", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        try:
            lines = [served.stdout.readline() for _ in range(3)]
            link = re.search(r"http://127.0.0.1:(\d+)/join/\S+", lines[2])[0]
            base = link.split("/join/")[0]
            with httpx2.Client(trust_env=False, follow_redirects=True, timeout=60) as browser:
                token = re.search(r'name="csrf" value="(\w+)"', browser.get(link).text)[1]
                text = browser.post(link, data={"csrf": token, "name": "Ada", "password": PASSWORD}).text
                said = {
                    "item": int(re.search(r'data-item="(\d+)"', text)[1]),
                    "submission": re.search(r'data-submission="([^"]+)"', text)[1],
                    "mode": "compare",
                    "answer": {"choices": {"helpful": {"ranks": [1, 1], "all_bad": True}}},
                }
                token = re.search(r'data-csrf="(\w+)"', text)[1]
                assert browser.post(f"{base}/api/answer", json=said, headers={"x-csrf": token}).status_code == 200
            (label,) = read_comparisons(f"feedback:{store}", "helpful").records
            assert label.all_bad and set(label.replies) == {"x", "y"}, "read while it is served"
        finally:
            served.terminate()
    assert store.with_name("feedback.db.secret").stat().st_mode & 0o777 == 0o600


def test_a_conversation_gets_two_replies_of_two_snapshots(snapshots, prompts, monkeypatch):
    config = config_of(snapshots, prompts, samples=2, mode=["chat"], data=Collect.model_fields["data"].default)
    replying = Snapshots(config)
    turns = [Turn("user", "why the cat runs"), Turn("assistant", "so"), Turn("user", "and then")]
    (first, whence), (second, other) = replying.replies(turns)
    assert first.strip() != second.strip() and {json.loads(o)["snapshot"] for o in (whence, other)} == {
        *config.snapshots
    }
    with pytest.raises(BadInput, match="longer than the model reads"):
        replying.replies([Turn("user", "a cat " * 2000)])
    monkeypatch.setattr(replying, "draw", lambda *_, **__: [["same "]])
    with pytest.raises(BadInput, match="no two replies that differ"):
        replying.replies(turns)
