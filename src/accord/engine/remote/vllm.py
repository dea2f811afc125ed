"""Rollouts from a vLLM server: token ids go in, token ids and log-probs come out, weights are pushed by path.

    VLLM_SERVER_DEV_MODE=1 vllm serve DIRECTORY --logprobs-mode processed_logprobs

The server's tokenizer is never used, and nothing that it should have sent is assumed: a field that is missing, a prompt
that was changed, a reply that ends with no stop token or before it is as long as it may be, a token that is none are
errors, for each would become a wrong ratio in silence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accord.engine.decode.draw import SampleSettings, tokenless, uniforms
from accord.engine.remote.fleet import ServerAway
from accord.engine.remote.http import CallFailed, call_json
from accord.errors import BadInput
from accord.records import Rollout

TIMEOUT = 600.0  # seconds that a request may take
WELL = 10.0  # seconds that a server may take to say that it is well
NEVER = -100.0  # the least bias of a logit that vLLM takes


@dataclass(frozen=True)
class Server:
    """A server at `url` that serves `model` (the name it was started with); `timeout` is seconds per request.

    Prompt and reply have `reads` tokens at most, 0 where it does not say.
    """

    url: str
    model: str
    timeout: float = TIMEOUT
    reads: int = 0

    @classmethod
    def at(cls, url: str, *, timeout: float = TIMEOUT) -> "Server":
        """The server at `url`, with the model that it says it serves; BadInput where none answers."""
        served = _field(cls(url, "", timeout)._call("/v1/models"), "data", list)
        if len(served) != 1:
            raise BadInput(f"{url} serves {len(served)} models; start one server for one model, without adapters")
        return cls(url, _field(served[0], "id", str), timeout, int(served[0].get("max_model_len") or 0))

    def ask(self, settings: SampleSettings, prompt: Sequence[int], number: int, rows: int = 0) -> list[Rollout]:
        """`settings.n` rollouts of one prompt, which has this number; ServerAway where a later try may get them.

        Its request has a seed of its own, a function of `seed` and the number, so what it draws does not depend on the
        other prompts. Every setting that shapes a distribution is sent: what a request leaves open is taken from the
        model's own generation config. Of the `rows` of the model's head, those without a token are biased away; a list
        of what is allowed would be the whole vocabulary, in every request. Raises BadInput where the server answers
        with an error or less than asked.
        """
        body = {
            "model": self.model,
            "n": settings.n,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "logit_bias": {str(token): NEVER for token in tokenless(settings.vocabulary, rows)},
            "logprobs": 0,  # that of the sampled token alone
            "return_token_ids": True,
            "stop_token_ids": sorted(settings.stop_ids),
            "ignore_eos": True,  # `stop_ids` alone end a reply
            "prompt": list(prompt),
            "seed": request_seed(settings.seed, number),
        }
        answer = self._call("/v1/completions", body)
        choices = sorted(_field(answer, "choices", list), key=lambda choice: int(choice.get("index", 0)))
        if len(choices) != settings.n:
            raise BadInput(f"{self.url}: asked for {settings.n} replies and got {len(choices)}")
        return [self._rollout(prompt, choice, settings) for choice in choices]

    def is_well(self) -> bool:
        """Whether it answers that it can serve."""
        try:
            call_json(self.url.rstrip("/") + "/health", timeout=min(self.timeout, WELL))
        except CallFailed as error:
            return error.status == 200  # with whatever words
        return True

    def _rollout(self, prompt: Sequence[int], choice: Any, settings: SampleSettings) -> Rollout:
        if _field(choice, "prompt_token_ids", list) != list(prompt):
            raise BadInput(f"{self.url}: the server computed other prompt tokens than it was sent")
        ids = _field(choice, "token_ids", list)
        logprobs = _field(_field(choice, "logprobs", dict), "token_logprobs", list)
        if len(ids) != len(logprobs) or not all(isinstance(p, float) and math.isfinite(p) for p in logprobs):
            raise BadInput(f"{self.url}: {len(ids)} tokens came with {len(logprobs)} log-probs, or one is no number")
        if settings.vocabulary and not settings.vocabulary.issuperset(ids):
            nameless = next(token for token in ids if token not in settings.vocabulary)
            raise BadInput(f"{self.url}: it drew {nameless}, which is no token; its logit_bias is not taken")
        finish = _field(choice, "finish_reason", str)
        ended = settings.finish(ids)
        if finish != ended:
            stop = "a" if ended == "stop" else "no"
            raise BadInput(f"{self.url}: a reply finished as {finish!r} with {stop} stop token")
        if ended == "length" and len(ids) != settings.max_new_tokens:
            raise BadInput(
                f"{self.url}: it cut a reply off after {len(ids)} of {settings.max_new_tokens} tokens; "
                "start it without --generation-config or --override-generation-config, or with a larger --max-model-len"
            )
        return Rollout(tuple(prompt), tuple(ids), tuple(logprobs), ended, settings.temperature, settings.version)

    def load(self, directory: str) -> None:
        """Take the weights of a snapshot directory that the server can read, and forget what was cached of the old."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": directory}, "timeout": self.timeout}
        self._call("/collective_rpc", body)
        self._call("/reset_prefix_cache", {})

    def _call(self, route: str, body: dict[str, Any] | None = None) -> Any:
        try:
            return call_json(self.url.rstrip("/") + route, body, timeout=self.timeout)
        except CallFailed as error:
            hint = "; is the server running?" if not error.status else ""
            if error.slow:
                hint = "; ask for less with --max_new_tokens, or give --engine more servers"
            if error.status == 404 and not route.startswith("/v1"):
                hint = "; start it with VLLM_SERVER_DEV_MODE=1"
            said = f"{self.url}{route} {error}{hint}"
            if error.passing:
                raise ServerAway(said, error.status, error.pause) from None
            raise BadInput(said) from None


def servers_at(where: str, longest: int = 0, knobs: str = "") -> list[Server]:
    """The servers at addresses with commas between them.

    BadInput where one is silent, or does not read the `longest` text that `knobs` let prompt and reply be, in tokens.
    """
    servers = [Server.at(url) for url in where.split(",")]
    for server in servers:
        if server.reads and longest > server.reads:
            raise BadInput(
                f"{server.url} reads {server.reads} tokens, and {knobs} is {longest}; "
                "start it with a larger --max-model-len, or give less"
            )
    return servers


def _field(record: Any, name: str, kind: type) -> Any:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise BadInput(f"the server's answer has no {name} ({kind.__name__}); vLLM from 0.11 on sends it")
    return value


def request_seed(seed: int, number: int) -> int:
    """31 bits that differ from prompt to prompt and from call to call."""
    return int(2**31 * uniforms(seed, np.array([number], dtype=np.uint64), 0)[0])
