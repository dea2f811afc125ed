"""Maximum likelihood: pretraining and supervised fine-tuning."""

from torch import Tensor


def likelihood_loss(logprobs: Tensor, *, count: Tensor | float) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean negative log-likelihood of the target tokens, in nats.

    `logprobs` (N,) are those of the tokens that carry loss; `count` is their number in the whole batch.
    """
    loss = -logprobs.sum() / count
    return loss, {"loss": loss.detach()}
