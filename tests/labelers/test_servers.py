"""Labelers behind HTTP, against a server that fails in every way: no label is lost or doubled, nothing is pretended."""

import json
import math
import threading
import time

import pytest

from accord.config import PROTOCOLS
from accord.engine.remote import http
from accord.errors import BadInput, Interrupted
from accord.labelers.budget import Budget, BudgetSpent, Prices
from accord.labelers.endpoint import Endpoint
from accord.labelers.labeler import Writing
from accord.labelers.questions import ENGLISH
from accord.labelers.remote import ServerLost
from accord.labelers.wires import CUT, place_of, wires
from accord.records import Turn

WRITING = Writing(20, 1.0, 3)


def journal(tmp_path):
    return [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]


def labels(tmp_path):
    return [row for row in journal(tmp_path) if "probabilities" in row]


def close(probabilities, expected=(0.75, 0.25)):
    return probabilities == pytest.approx(expected, abs=1e-6)


def test_every_protocol_has_its_wire():
    assert tuple(wires(1)) == PROTOCOLS


def test_log_probs_are_taken_where_they_truly_came_back(server, opened, questions, tmp_path):
    answers = opened().ask(questions)
    assert all(close(answer.probabilities) and answer.method == "logprobs" for answer in answers)
    assert len(server.seen) == len(questions)
    _, _, body = server.seen[0]
    assert body["model"] == "judge" and body["logprobs"] is True and body["max_tokens"] == 1
    rows = labels(tmp_path)
    assert len(rows) == len(questions) and {row["method"] for row in rows} == {"logprobs"}
    assert all((row["calls"], row["sent"], row["answered"]) == (1, 10, 2) for row in rows)


def test_an_answer_that_is_not_among_the_likeliest_has_at_most_the_least_of_them(server, opened, questions):
    server.answers = {"A": 0.75}
    (answer,) = opened().ask(questions[:1])
    assert close(answer.probabilities, (0.675 / 0.775, 0.1 / 0.775))


def test_log_probs_that_are_silently_left_out_make_way_for_json_and_every_record_says_so(
    server, opened, questions, tmp_path, capsys
):
    server.gives = {"json"}
    answers = opened().ask(questions)
    assert all(close(answer.probabilities) and answer.method == "json" for answer in answers)
    assert {row["method"] for row in labels(tmp_path)} == {"json"}
    assert capsys.readouterr().out.count("is not asked for logprobs any more: it gave no log-probs") == 1
    assert len(server.seen) == len(questions) + 1, "the first question alone tries the way that is not there"


@pytest.mark.parametrize("n", [True, False], ids=["n is taken", "n is silently ignored"])
def test_where_nothing_is_known_answers_are_drawn(server, opened, questions, n, tmp_path):
    """As `transformers serve` does: log-probs, JSON and n are accepted, and nothing of it is done."""
    server.gives = {"n"} if n else set()
    answers = opened(draws=4).ask(questions[:3])
    assert {answer.method for answer in answers} == {"samples"}
    expected = (3.5 / 5, 1.5 / 5) if n else (4.5 / 5, 0.5 / 5)
    assert all(close(answer.probabilities, expected) for answer in answers)
    assert len(server.seen) == 2 + 3 * (1 if n else 4)
    seeds = [body["seed"] for _, _, body in server.seen if "n" in body]
    assert n or sorted(seeds) == sorted([0, 1, 2, 3] * 3), "four draws, not one four times"


def test_what_a_server_can_not_do_is_remembered_by_the_next_start(server, opened, questions):
    server.gives = {"n"}
    opened(draws=4).ask(questions[:2])
    before = len(server.seen)
    opened(draws=4).ask(questions)
    assert len(server.seen) == before + len(questions) - 2


def test_a_server_that_refuses_the_field_is_asked_without_it(server, opened, questions):
    server.fault = lambda body, number: (
        (lambda self, answer: self.say(400, {"error": "logprobs are not supported"})) if "logprobs" in body else None
    )
    assert {answer.method for answer in opened().ask(questions)} == {"json"}


def test_a_server_that_wants_the_limit_by_its_newer_name_gets_it(server, opened, questions):
    said = {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}}
    server.fault = lambda body, number: (lambda self, _: self.say(400, said)) if "max_tokens" in body else None
    assert {answer.method for answer in opened().ask(questions)} == {"logprobs"}
    assert len(server.seen) == len(questions) + 1


def test_a_tool_gives_probabilities_in_the_protocol_without_log_probs(server, opened, questions):
    assert {(answer.method, answer.probabilities) for answer in opened("anthropic").ask(questions)} == {
        ("json", (0.75, 0.25))
    }
    path, headers, body = server.seen[0]
    assert path == "/v1/messages" and headers["anthropic-version"] and body["tool_choice"]["name"] == "answer"
    server.gives = set()
    opened.journals[-1].path.unlink()
    (answer,) = opened("anthropic", draws=3).ask(questions[:1])
    assert answer.method == "samples" and close(answer.probabilities, (3.5 / 4, 0.5 / 4))


def test_what_the_system_says_stands_apart_in_the_protocol_that_wants_it_so(server, opened):
    opened("anthropic").write([(Turn("system", "be kind"), Turn("user", "hello"))], WRITING)
    body = server.seen[0][2]
    assert body["system"] == "be kind" and [m["role"] for m in body["messages"]] == ["user"]


def test_typed_decisions(server, opened, questions):
    labeler = opened("systemone")
    turns = (Turn("user", "hello"),)
    server.answers = {"A": 0.75, "B": 0.25, "C": 0.0, "D": 0.0, "E": 0.0}
    asked = [
        questions[0],
        ENGLISH.about_one("yes-no", turns, "hi", "Is it polite?", "polite"),
        ENGLISH.about_one("score", turns, "hi", "How polite is it?", "polite"),
    ]
    choice, yes, score = labeler.ask(asked)
    assert close(choice.probabilities) and close(yes.probabilities) and close(score.probabilities[:2])
    assert {answer.method for answer in (choice, yes, score)} == {"decision"} and len(score.probabilities) == 5
    kinds = [next(iter(body["questions"].values()))["type"] for _, _, body in server.seen]
    assert sorted(kinds) == ["choice", "noul", "score"]
    assert "hello" in server.seen[0][2]["state"] or "question 0" in server.seen[0][2]["state"]
    with pytest.raises(BadInput, match="writes no texts"):
        labeler.write([turns], WRITING)


def dies(self, answer):
    self.connection.close()


FAULTS = {
    "429": lambda self, answer: self.say(429, {}, Retry_After="7"),
    "500": lambda self, answer: self.say(500, b"oops"),
    "503": lambda self, answer: self.say(503, {}),
    "hang": lambda self, answer: threading.Event().wait(1.5),
    "half JSON": lambda self, answer: self.say(200, json.dumps(answer)[:-9].encode()),
    "wrong schema": lambda self, answer: self.say(200, {"choices": []}),
    "no object": lambda self, answer: self.say(200, [1]),
    "reset": dies,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_what_fails_in_passing_is_asked_again_and_no_label_is_lost_or_doubled(
    server, opened, questions, fault, tmp_path
):
    some = questions[:4]
    server.fault = lambda body, number: fault if number == 1 else None
    answers = opened().ask(some)
    assert all(close(answer.probabilities) and answer.method == "logprobs" for answer in answers)
    assert set(server.asked.values()) == {2}
    rows = labels(tmp_path)
    assert len({row["id"] for row in rows}) == len(rows) == len(some) and all(row["calls"] == 2 for row in rows)


def test_a_server_that_asks_for_rest_gets_it(server, opened, questions):
    server.fault = lambda body, number: FAULTS["429"] if number == 1 else None
    opened().ask(questions[:2])
    assert server.slept == [7.0, 7.0]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_what_keeps_failing_stops_the_run_and_what_was_answered_stays(server, opened, questions, fault, tmp_path):
    bad = json.dumps([{"role": "user", "content": questions[2].turns[0].content}])
    server.fault = lambda body, number: fault if json.dumps(body["messages"]) == bad else None
    with pytest.raises(ServerLost, match="--resume goes on"):
        opened(at_once=1).ask(questions)
    kept = len(labels(tmp_path))
    assert kept >= 2 and server.asked[bad] == 3
    server.fault = lambda body, number: None
    answers = opened().ask(questions)
    assert all(close(answer.probabilities) for answer in answers)
    assert len(labels(tmp_path)) == len(questions)
    assert max(count for text, count in server.asked.items() if text != bad) == 1, "nothing is asked twice"


def test_a_rest_that_is_too_long_stops_the_run(server, opened, questions):
    server.fault = lambda body, number: lambda self, _: self.say(429, {}, Retry_After="86400")
    with pytest.raises(ServerLost, match="429"):
        opened().ask(questions[:1])
    assert server.slept == []


def test_no_redirect_is_followed(server, opened, questions):
    server.fault = lambda body, number: lambda self, _: self.say(307, {}, Location=f"{server.url}/elsewhere")
    with pytest.raises(BadInput, match="redirects are not followed"):
        opened().ask(questions)
    assert {path for path, _, _ in server.seen} == {"/v1/chat/completions"}


def test_a_huge_answer_is_not_read_to_its_end(server, opened, questions):
    server.fault = lambda body, number: lambda self, _: self.say(200, b'"' + b"x" * (1 << 23) + b'"')
    with pytest.raises(ServerLost, match="more than 4194304 bytes"):
        opened().ask(questions[:1])


def test_an_answer_that_trickles_in_is_given_up(server, opened, questions):
    def trickle(self, answer):
        self.send_response(200)
        self.end_headers()
        for _ in range(40):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.05)

    server.fault = lambda body, number: trickle
    with pytest.raises(ServerLost, match="did not end its answer"):
        opened(attempts=1).ask(questions[:1])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_address_is_said_at_once(server, opened, questions, status, tmp_path):
    server.fault = lambda body, number: lambda self, _: self.say(status, {"error": "no"})
    with pytest.raises(BadInput, match="right address, model and key"):
        opened().ask(questions)
    assert len(server.seen) == 1 and not (tmp_path / "journal.jsonl").exists()


def test_a_question_that_is_refused_has_no_answer_and_the_reason_is_kept(server, opened, questions, tmp_path):
    bad = questions[3].turns[0].content[:60]
    server.fault = lambda body, number: (
        (lambda self, _: self.say(400, {"error": "content filter"}))
        if "question 3" in json.dumps(body["messages"])
        else None
    )
    answers = opened().ask(questions)
    assert bad and [i for i, answer in enumerate(answers) if not answer.probabilities] == [3]
    assert "content filter" in answers[3].why
    before = len(server.seen)
    assert opened().ask(questions)[3].why == answers[3].why and len(server.seen) == before
    assert {answer.method for i, answer in enumerate(answers) if i != 3} == {"logprobs"}


def test_a_server_that_answers_beside_every_question_is_refused(server, opened, questions):
    server.answers = {"Maybe": 1.0}
    server.gives = {"logprobs", "n"}
    with pytest.raises(BadInput, match="none of 12 questions was answered"):
        opened(draws=2).ask(questions)


def test_calls_are_in_flight_together_and_bounded(server, opened, questions):
    server.pause = 0.05
    opened(at_once=5).ask(questions)
    assert 2 <= server.most_flying <= 5


def test_equal_questions_are_asked_once(server, opened, questions):
    answers = opened().ask([questions[0]] * 5)
    assert len(answers) == 5 and len(server.seen) == 1


def test_texts_are_written_once(server, opened, tmp_path):
    prompts = [(Turn("user", f"say {i}"),) for i in range(6)]
    assert opened().write(prompts, WRITING) == [("A", "")] * 6
    assert opened().write(prompts, WRITING) == [("A", "")] * 6
    assert len(server.seen) == 6 and server.seen[0][2]["max_tokens"] == 20
    assert len({body["seed"] for _, _, body in server.seen}) == 6
    opened().write(prompts[:1], Writing(20, 1.0, 4))
    assert len(server.seen) == 7, "another seed is another text"


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_a_text_that_was_cut_is_known_as_such(server, opened, protocol):
    server.finish = "length", "max_tokens"
    (draft,) = opened(protocol).write([(Turn("user", "say"),)], WRITING)
    assert draft.text == "A" and draft.why == CUT


def test_the_number_of_calls_is_bounded_failed_ones_too_and_over_restarts(server, opened, questions, tmp_path):
    server.fault = lambda body, number: FAULTS["500"] if number == 1 else None
    with pytest.raises(BudgetSpent, match="--max_calls 7"):
        opened(max_calls=7, at_once=1).ask(questions)
    assert len(server.seen) == 7 and len(labels(tmp_path)) == 3
    with pytest.raises(Interrupted):
        opened(max_calls=7).ask(questions)
    assert len(server.seen) == 7
    assert all(close(answer.probabilities) for answer in opened().ask(questions))


def test_no_more_money_is_spent_than_there_is(server, opened, questions, tmp_path):
    """10 tokens sent at 1000 a million and 2 answered at 5000 cost 0.02; the dearest end of a call is its bytes'."""
    prices = {"price_sent": 1000.0, "price_answered": 5000.0}
    with pytest.raises(BudgetSpent, match="--max_cost 1"):
        opened(max_cost=1.0, at_once=8, **prices).ask(questions * 10 + many(100))
    spent = sum(row.get("cost", 0) for row in journal(tmp_path))
    assert spent <= 1.0 and spent == pytest.approx(0.02 * len(server.seen))
    body = len(json.dumps(server.seen[0][2]))
    assert spent + body / 1000 > 1.0, "and no earlier than the next call might go beyond"


def many(count):
    return [ENGLISH.about_two((Turn("user", f"more {i}"),), "1", "2", "Which?", "x") for i in range(count)]


def test_money_without_usage_can_not_be_counted(server, opened, questions):
    server.fault = lambda body, number: lambda self, answer: self.say(200, {**answer, "usage": None})
    with pytest.raises(BadInput, match="tells no usage"):
        opened(max_cost=1.0, price_sent=1.0).ask(questions)
    opened.journals[-1].close()
    assert opened().ask(questions)


def test_a_call_waits_for_those_in_flight_where_they_may_leave_too_little():
    budget = Budget(0, 1.0, Prices(1, 1))
    budget.take(0.8)
    waiting = threading.Thread(target=budget.take, args=(0.5,))
    waiting.start()
    budget.settle(0.8, 0.1)
    waiting.join(5)
    assert not waiting.is_alive() and budget.calls == 2
    with pytest.raises(BudgetSpent):
        budget.settle(0.5, 0.5)
        budget.take(0.5)


def test_a_key_comes_from_the_environment_and_is_written_nowhere(
    server, opened, questions, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("MINE", "another-secret")
    opened().ask(questions[:2])
    assert server.seen[0][1]["Authorization"] == "Bearer sk-very-secret"
    opened(key_variable="MINE").ask(questions[2:4])
    assert server.seen[-1][1]["Authorization"] == "Bearer another-secret"
    server.fault = lambda body, number: FAULTS["500"]
    with pytest.raises(ServerLost) as lost:
        opened().ask(questions)
    told = str(lost.value) + capsys.readouterr().out + (tmp_path / "journal.jsonl").read_text()
    assert "secret" not in told
    with pytest.raises(BadInput, match="--key_variable NOT_THERE"):
        opened(key_variable="NOT_THERE")


def test_an_address_of_this_machine_has_to_be_allowed(opened, monkeypatch):
    with pytest.raises(BadInput, match="--allow_local"):
        opened(allow_local=False)
    for found in ("10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1", "0.0.0.0"):
        monkeypatch.setattr(http.socket, "getaddrinfo", lambda *_, f=found, **__: [(0, 0, 0, "", (f, 80))])
        with pytest.raises(BadInput, match="--allow_local"):
            http.checked_peer("https://judge.example", allow_local=False)


def test_the_connection_goes_to_the_address_that_was_checked(server, opened, questions, monkeypatch):
    """A name that says something else later (DNS rebinding) changes nothing."""
    server.url = server.url.replace("127.0.0.1", "judge.example")
    looked, real = [], http.socket.getaddrinfo

    def resolve(host, *rest, **more):
        looked.append(host)
        return real("127.0.0.1" if host == "judge.example" else host, *rest, **more)

    monkeypatch.setattr(http.socket, "getaddrinfo", resolve)
    labeler = opened()
    monkeypatch.setattr(http, "LOCAL", frozenset())
    labeler.ask(questions)
    assert looked.count("judge.example") == 1
    assert server.seen[0][1]["Host"] == f"judge.example:{server.server_port}"


def test_a_key_does_not_travel_in_the_clear(monkeypatch, tmp_path, opened, server):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(http.socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("93.184.216.34", 80))])
    with pytest.raises(BadInput, match="readable by anyone"):
        opened(allow_local=False)


@pytest.mark.parametrize(
    "where",
    [
        "openai:",
        "openai:http://a",
        "grpc:http://a#m",
        "openai:ftp://a/v1#m",
        "openai:http://me:key@a/v1#m",
        "openai:#m",
    ],
)
def test_an_address_that_is_none_is_refused(where):
    with pytest.raises(BadInput) as refused:
        Endpoint.named(where)
    assert "key@" not in str(refused.value)


def test_answers_are_found_in_any_case_and_among_marks_but_not_in_sentences():
    assert place_of(" (A)", ("A", "B")) == 0 and place_of("b.", ("A", "B")) == 1
    assert place_of("YES!", ("yes", "no")) == 0 and place_of("\u2581no", ("yes", "no")) == 1
    assert place_of("A or B", ("A", "B")) is None and place_of("", ("A", "B")) is None


def ten_thousand(server, opened, count):
    asked = many(count)
    answers = opened(at_once=32, timeout=30.0).ask(asked)
    assert len(answers) == count and all(answer.method == "logprobs" for answer in answers)
    assert len(server.asked) == count and set(server.asked.values()) == {1}
    assert math.isclose(sum(answer.probabilities[0] for answer in answers), 0.75 * count, rel_tol=1e-6)
    return answers


def test_many_labels_through_a_stub(server, opened):
    ten_thousand(server, opened, 200)


@pytest.mark.slow
def test_ten_thousand_labels_through_a_stub(server, opened):
    ten_thousand(server, opened, 10_000)
