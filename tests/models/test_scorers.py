"""Scores from anywhere: functions, an HTTP stub, another tokenizer; failures are errors, 0.0 is a score."""

import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from accord.engine.packing import reply_group
from accord.engine.remote import fleet as fleets
from accord.errors import BadInput
from accord.models.scorers import ConversationScorer, open_scorer
from accord.models.text_scorers import ScorerFailed, TextScorer
from accord.records import Prompt, Turn

CPU = torch.device("cpu")
PROMPTS = [Prompt((Turn("system", "be brief"), Turn("user", word)), "", "") for word in ("cat", "dog", "river")]
REPLIES = ["the cat", "", "a big river"]


def score(scorer, prompts=PROMPTS, replies=REPLIES):
    return scorer.scores(prompts, replies, [], micro_tokens=100)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the working directory with scorers in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "my_scores.py").write_text(
        "def words(conversations):\n"
        "    return [float(len(c[-1]['content'].split())) for c in conversations]\n"
        "def seen(conversations):\n"
        "    return [len(c) + (c[0]['role'] == 'system') + (c[1]['content'] == 'cat') for c in conversations]\n"
        "def fails(conversations):\n    raise KeyError('nothing there')\n"
        "def nothing(conversations):\n    return [None for _ in conversations]\n"
        "def few(conversations):\n    return [1.0]\n"
        "def yes(conversations):\n    return [True for _ in conversations]\n"
        "def infinite(conversations):\n    return [float('inf') for _ in conversations]\n"
        "number = 3\n"
    )
    yield "my_scores"
    sys.modules.pop("my_scores", None)


def test_a_function_sees_the_conversation_and_0_is_a_score(module, renderer):
    assert score(open_scorer(f"{module}:words", "preference", renderer, CPU)).tolist() == [2.0, 0.0, 3.0]
    assert score(open_scorer(f"{module}:seen", "cost", renderer, CPU)).tolist() == [5.0, 4.0, 4.0]


def test_a_scorer_of_texts_knows_its_role_and_renders_as_the_policy_does(module, service, renderer):
    for where in (f"{module}:words", service[0]):
        scorer = open_scorer(where, "cost", renderer, CPU)
        assert scorer.role == "cost" and scorer.renderer is renderer


def test_b7_what_a_function_raises_is_raised(module, renderer):
    with pytest.raises(KeyError, match="nothing there"):
        score(open_scorer(f"{module}:fails", "preference", renderer, CPU))


@pytest.mark.parametrize("name", ["nothing", "few", "yes", "infinite"])
def test_b7_what_is_no_score_is_an_error(module, renderer, name):
    with pytest.raises(ScorerFailed, match=f"my_scores:{name}"):
        score(open_scorer(f"{module}:{name}", "preference", renderer, CPU))


@pytest.mark.parametrize("where", ["my_scores:missing", "no_such_module:words", "my_scores:number"])
def test_a_function_that_is_not_there_is_bad_input(module, renderer, where):
    with pytest.raises(BadInput, match=where.split(":")[0]):
        open_scorer(where, "preference", renderer, CPU)


def test_many_replies_go_in_parts_and_come_back_in_order(renderer):
    calls = []

    def call(conversations):
        calls.append(len(conversations))
        return [float(c[-1]["content"]) for c in conversations]

    scorer = TextScorer("here", "preference", renderer, call)
    found = score(scorer, PROMPTS[:1] * 150, [str(i) for i in range(150)])
    assert found.tolist() == list(range(150)) and calls == [64, 64, 22]
    assert not scorer.remote  # a function of this process is called in its own thread


@pytest.fixture
def service():
    """A scorer behind HTTP: `answers` are (status, body) to give, one after the other; the last one stays."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Handler.asked.append(asked)
            Handler.keys.append(self.headers.get("Authorization"))
            status, body = Handler.answers.pop(0) if len(Handler.answers) > 1 else Handler.answers[0]
            if body is None:
                body = json.dumps({"scores": [len(c[-1]["content"]) for c in asked["conversations"]]})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments):
            pass

    Handler.answers, Handler.asked, Handler.keys = [(200, None)], [], []
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/score", Handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_http_scorer_is_sent_conversations(service, renderer):
    url, handler = service
    assert score(open_scorer(url, "preference", renderer, CPU)).tolist() == [7.0, 0.0, 11.0]
    first = handler.asked[0]["conversations"][0]
    assert [turn["role"] for turn in first] == ["system", "user", "assistant"] and first[2]["content"] == "the cat"


def test_what_fails_in_passing_is_asked_again(service, renderer, monkeypatch):
    monkeypatch.setattr(fleets, "PAUSE", 0.01)
    url, handler = service
    handler.answers = [(503, "busy"), (429, "slow down"), (200, None)]
    assert score(open_scorer(url, "preference", renderer, CPU)).tolist() == [7.0, 0.0, 11.0]
    assert len(handler.asked) == 3


@pytest.mark.parametrize(
    ("answer", "said", "calls"),
    [
        ((500, "broken"), "answered 500", fleets.TRIES),
        ((400, "what?"), "answered 400", 1),
        ((200, "no json"), "no JSON", fleets.TRIES),
        ((200, "{}"), "no JSON object with scores", 1),
        ((200, '{"scores": [1.0]}'), "1 scores for 3", 1),
        ((200, '{"scores": [1.0, null, 2.0]}'), "None", 1),
        ((200, '{"scores": 7}'), "a int", 1),
    ],
)
def test_b7_a_service_that_fails_is_an_error(service, renderer, monkeypatch, answer, said, calls):
    monkeypatch.setattr(fleets, "PAUSE", 0.01)
    url, handler = service
    handler.answers = [answer]
    with pytest.raises(ScorerFailed if calls == 1 else BadInput, match=said):
        score(open_scorer(url, "preference", renderer, CPU))
    assert len(handler.asked) == calls


def test_several_services_are_one_scorer(service, renderer, capsys):
    """Each is given a part; the second is at another path of the same."""
    url, handler = service
    assert score(open_scorer(f"{url},{url}/more", "preference", renderer, CPU)).tolist() == [7.0, 0.0, 11.0]
    assert sorted(len(asked["conversations"]) for asked in handler.asked) == [1, 2]
    assert "does not say what it is" in capsys.readouterr().out


def test_a_key_is_sent_and_neither_stands_in_an_address_nor_travels_readable(service, renderer, monkeypatch):
    monkeypatch.setenv("ACCORD_SCORES_KEY", "secret")
    url, handler = service
    score(open_scorer(url, "preference", renderer, CPU))
    assert handler.keys[-1] == "Bearer secret"
    with pytest.raises(BadInput, match="travel readable by anyone"):
        open_scorer("http://scores.example.com/scores", "preference", renderer, CPU)
    with pytest.raises(BadInput, match="holds no key") as refused:
        open_scorer(url.replace("http://", "http://me:secret@"), "preference", renderer, CPU)
    assert "secret" not in str(refused.value).replace("ACCORD_SCORES_KEY", "")


def test_a_service_that_is_silent_is_refused_before_it_is_needed(renderer):
    with pytest.raises(BadInput, match="is the server running"):
        open_scorer("http://127.0.0.1:9/scores", "preference", renderer, CPU)


def test_b10_a_model_with_another_tokenizer_sees_the_conversation_anew(snapshots, renderer, tmp_path):
    """The same texts by the model alone, rendered by its own tokenizer, have the same scores."""

    from accord.data.chat import Renderer, train_tokenizer
    from accord.models.policy import new_policy
    from accord.models.saving import save_model
    from accord.models.scalar import new_scalar

    other = train_tokenizer(["the cat sees a river", "a big dog runs with salt"] * 20, 280)
    plain = {"kind": "none", "shift": 0.0, "scale": 1.0}
    policy = new_policy("nano", other, max_length=64, seed=3)
    save_model(policy, other, tmp_path / "p", {"role": "policy", "criterion": "", "normalizer": plain}, "")
    model = new_scalar(str(tmp_path / "p"), "helpful", 4)
    model.save_pretrained(tmp_path / "foreign")  # as any other program leaves it
    other.save_pretrained(tmp_path / "foreign")
    scorer = open_scorer(str(tmp_path / "foreign"), "preference", renderer, CPU)
    assert isinstance(scorer, ConversationScorer) and scorer.renderer is not None
    wrong = [reply_group((0,), (1, 2)) for _ in PROMPTS]
    found = scorer.scores(PROMPTS, REPLIES, wrong, micro_tokens=100)
    own = Renderer(other)
    for value, prompt, reply in zip(found, PROMPTS, REPLIES, strict=True):
        ids = [*own.prompt_ids(prompt.turns), *own.reply_ids(reply)]
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).logits[0, 0]
        assert torch.isclose(value, expected, atol=1e-5)


def test_a_run_with_a_function_as_reward_and_as_cost_raises_what_it_counts(module, commands, tmp_path):
    """No model at all: a limit on the words of a reply, by a function, and the critics start from the policy."""
    changes = {"rewards.helpful": f"{module}:words", "costs.harm": f"{module}:seen", "limits.harm": 9.0}
    assert commands.run("limited", tmp_path / "run", steps=2, **changes) == 0
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["cost/harm/mean"] == 2.0 and row["reward/helpful"] > 0


def test_b7_a_function_that_fails_ends_the_run(module, commands, tmp_path, capsys):
    assert commands.run("ppo", tmp_path / "run", **{"rewards.helpful": f"{module}:fails"}) == 1
    assert "nothing there" in capsys.readouterr().err
    assert not (tmp_path / "run" / "snapshot").exists()


def test_a_cut_reply_is_read_the_same_way_with_our_tokenizer_and_with_its_own(commands, renderer):
    """At its last token; a finished one at its end of turn. Two replies to a prompt share it in the policy's ids."""
    prompt = renderer.prompt_ids(PROMPTS[0].turns)
    ids = [renderer.reply_ids(reply) for reply in ("the cat sees", "a big river", "why")]
    drawn = [ids[0][:-1], ids[1], ids[2], ids[0][:1]]  # the first is cut, and the last after its first token
    texts = [renderer.text(one) for one in drawn]
    groups = [reply_group(prompt, *drawn[:2]), reply_group(prompt, *drawn[2:])]
    ours, own = (
        ConversationScorer(str(commands.snapshots / "reward"), "preference", renderer, CPU, "helpful") for _ in range(2)
    )
    own.renderer = renderer  # as where the tokenizer is another, which here gives the same ids
    found = [s.scores([PROMPTS[0]] * 4, texts, groups, micro_tokens=100) for s in (ours, own)]
    assert ours.renderer is None and torch.allclose(*found, atol=1e-5)


def test_tokenizers_that_differ_in_the_end_of_a_turn_are_two(commands, renderer, tmp_path):
    folder = tmp_path / "reward"
    shutil.copytree(commands.snapshots / "reward", folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("<|end|>", "<|tool|>"))
    scorer = ConversationScorer(str(folder), "preference", renderer, CPU, "helpful")
    assert scorer.renderer is not None and scorer.renderer.end != renderer.end
