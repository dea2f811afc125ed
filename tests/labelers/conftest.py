"""A server that answers questions in the protocols of `labelers/wires.py`, and fails as it is told."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from accord.config import Asking
from accord.labelers.backends import Labelers
from accord.labelers.journal import Journal
from accord.labelers.questions import ENGLISH
from accord.records import Turn
from accord.training import distributed
from tests.fixtures.serving import serving


class Answering(BaseHTTPRequestHandler):
    """`fault(body, number)` returns None to answer well, or what to do to the request instead."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps(body.get("messages", body.get("state")))
        with server.lock:
            server.seen.append((self.path, dict(self.headers), body))
            server.asked[text] += 1
            server.flying += 1
            server.most_flying = max(server.most_flying, server.flying)
            number = server.asked[text]
        try:
            if server.pause:
                time.sleep(server.pause)
            fault = server.fault(body, number)
            answer = server.answer(self.path, body)
            if callable(fault):
                fault(self, answer)
            else:
                self.say(200, answer)
        finally:
            with server.lock:
                server.flying -= 1

    def say(self, status, answer, **headers):
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.seen, self.asked, self.lock = [], Counter(), threading.Lock()
        self.flying = self.most_flying = 0
        self.fault, self.pause = (lambda body, number: None), 0.0
        self.gives = {"logprobs", "json", "n"}
        self.answers, self.finish = {"A": 0.75, "B": 0.25}, ("stop", "end_turn")
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_):
        """A client that has hung up is no news."""

    def answer(self, path, body):
        usage = {"usage": {"prompt_tokens": 10, "completion_tokens": 2, "input_tokens": 10, "output_tokens": 2}}
        return {"/v1/chat/completions": self.chat, "/v1/messages": self.message, "/v1/systemone": self.decide}[path](
            body
        ) | usage

    def chat(self, body):
        best = max(self.answers, key=self.answers.get)
        choice = {"index": 0, "message": {"role": "assistant", "content": best}}
        choice["finish_reason"] = self.finish[0]
        if "response_format" in body and "json" in self.gives:
            choice["message"]["content"] = json.dumps(self.answers)
        choices = [choice]
        if body.get("n", 1) > 1 and "n" in self.gives:
            drawn = [name for name, p in self.answers.items() for _ in range(round(p * body["n"]))]
            choices = [{**choice, "message": {"role": "assistant", "content": text}} for text in drawn]
        if body.get("logprobs"):
            top = [{"token": t, "logprob": _log(p * 0.9)} for t, p in self.answers.items()]
            top.append({"token": "The", "logprob": _log(0.1)})
            choice["logprobs"] = (
                {"content": [{"token": best, "top_logprobs": top}]} if "logprobs" in self.gives else None
            )
        return {"choices": choices}

    def message(self, body):
        if "tools" in body and "json" in self.gives:
            return {"content": [{"type": "tool_use", "name": "answer", "input": self.answers}]}
        text = max(self.answers, key=self.answers.get)
        return {"content": [{"type": "text", "text": text}], "stop_reason": self.finish[1]}

    def decide(self, body):
        ((name, asked),) = body["questions"].items()
        if asked["type"] == "noul":
            return {"answers": {name: {"type": "noul", "noul": 0.75}}}
        options = list(asked["criteria"])
        names = options if asked["type"] == "choice" else [str(i) for i in range(len(options))]
        return {"answers": {name: {"probabilities": dict(zip(names, self.answers.values(), strict=False))}}}


def _log(p):
    from math import log

    return log(p)


@pytest.fixture
def server():
    stub = Server()
    with serving(stub):
        yield stub


class Asks(Asking):
    """The knobs of a run that asks a server."""

    @property
    def asks_server(self):
        return True


@pytest.fixture
def opened(server, tmp_path, monkeypatch):
    """`opened(protocol="openai", **knobs)`: a labeler on the server; all have one journal."""
    monkeypatch.setattr("accord.engine.remote.http.sleep", server.__dict__.setdefault("slept", []).append)
    journals = []

    def labeler(protocol="openai", **knobs):
        journals.append(Journal(tmp_path / "journal.jsonl"))
        asking = Asks(**{"allow_local": True, "timeout": 0.5, "attempts": 3, "at_once": 8} | knobs)
        return Labelers(asking, distributed.start(1), journals[-1]).named(f"{protocol}:{server.url}#judge")

    labeler.journals = journals
    yield labeler
    for journal in journals:
        journal.close()


@pytest.fixture
def questions():
    return [
        ENGLISH.about_two((Turn("user", f"question {i}"),), "one", "two", "Which is better?", "good") for i in range(12)
    ]
