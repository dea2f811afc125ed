"""What every stage has to do: tokens and passes of a step, roles in memory, from knobs and the shape of a model."""

from dataclasses import dataclass

from accord.stages.plan.config import Forecast
from accord.training.footprint import DecoderShape, forward_operations


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt and a reply that stand for the data, of the longest text, and rows."""

    prompt: float
    reply: float
    longest: float
    rows: int


@dataclass(frozen=True)
class Pass:
    """One kind of pass of a step over all its tokens.

    `tokens` and `operations` are of one forward pass; `trained` says whether a backward pass follows.
    """

    what: str
    tokens: float
    operations: float
    trained: bool = False
    times: float = 1.0


@dataclass(frozen=True)
class Drawing:
    """Replies to draw in an iteration: prompts, replies to each, and their tokens."""

    prompts: int
    samples: int
    prompt: float
    reply: float

    @property
    def replies(self) -> int:
        return self.prompts * self.samples


@dataclass(frozen=True)
class Work:
    """A stage: optimizer steps (iterations of PPO), passes of each, and how many models are in memory.

    `trained` and `frozen` count models of the policy's size; `items` what a step can be divided into.
    """

    stage: str
    steps: int
    items: int
    item_tokens: float
    passes: tuple[Pass, ...]
    trained: int
    frozen: int
    drawing: Drawing | None = None


def work_of(stage: str, config: Forecast, shape: DecoderShape, lengths: Lengths) -> Work:
    """What a stage does with this data."""
    return {"sft": _sft, "preference": _preference, "dpo": _dpo, "ppo": _ppo}[stage](config, shape, lengths)


def _sft(config: Forecast, shape: DecoderShape, lengths: Lengths) -> Work:
    learns = _pass(shape, "learn", config.batch_size, lengths, replies=1, trained=True)
    return Work("sft", _steps(config, lengths), config.batch_size, _tokens(lengths, 1), (learns,), 1, 0)


def _preference(config: Forecast, shape: DecoderShape, lengths: Lengths) -> Work:
    learns = _pass(shape, "learn", config.batch_size, lengths, replies=2, trained=True, head=False)
    return Work("preference", _steps(config, lengths), config.batch_size, _tokens(lengths, 2), (learns,), 1, 0)


def _dpo(config: Forecast, shape: DecoderShape, lengths: Lengths) -> Work:
    """The reference's log-probs are computed once, before the first step: a forward pass for the first epoch."""
    learns = _pass(shape, "learn", config.batch_size, lengths, replies=2, trained=True)
    once = _pass(shape, "reference", config.batch_size, lengths, replies=2, times=1 / max(1.0, config.epochs))
    return Work("dpo", _steps(config, lengths), config.batch_size, _tokens(lengths, 2), (once, learns), 1, 0)


def _ppo(config: Forecast, shape: DecoderShape, lengths: Lengths) -> Work:
    signals = 1 + config.cost_models
    separate = signals if config.critic == "separate" else 0
    n, prompts = config.samples, config.batch_size

    def over(what: str, times: float, *, trained: bool = False, head: bool = False) -> Pass:
        return _pass(shape, what, prompts, lengths, replies=n, times=times, trained=trained, head=head)

    passes = (
        over("reference", 1, head=True),
        over("scores", signals),
        over("values", 1 if config.critic == "shared" else separate),  # one pass of the policy has every head's
        over("learn", config.ppo_epochs, trained=True, head=True),
        over("learn values", config.ppo_epochs * separate, trained=True),
    )
    reference = 0 if config.lora_rank else 1  # the policy with its adapter off
    drawing = Drawing(prompts, n, lengths.prompt, lengths.reply)
    used = tuple(each for each in passes if each.times)
    return Work(
        "ppo", config.iterations, prompts, _tokens(lengths, n), used, 1 + separate, signals + reference, drawing
    )


def _steps(config: Forecast, lengths: Lengths) -> int:
    return max(1, round(config.epochs * lengths.rows / config.batch_size))


def _tokens(lengths: Lengths, replies: int) -> float:
    """Tokens of an item: replies share their prompt."""
    return lengths.prompt + replies * lengths.reply


def _pass(
    shape: DecoderShape,
    what: str,
    items: int,
    lengths: Lengths,
    *,
    replies: int,
    times: float = 1.0,
    trained: bool = False,
    head: bool = True,
) -> Pass:
    """A pass over `items` prompts with their replies."""
    prompt, reply = lengths.prompt, lengths.reply
    tokens = items * _tokens(lengths, replies)
    # causal: a token sees what stands before it, and the prompt is computed once
    pairs = items * (prompt**2 / 2 + replies * (prompt * reply + reply**2 / 2))
    rows = items * replies * reply if head else 0.0
    return Pass(what, tokens, forward_operations(shape, tokens, rows, pairs), trained, times)
