"""Where a scorer of others is read: Accord at the end of the reply, its card behind all that the template writes."""

import torch

from accord.engine.packing import reply_group
from accord.models.places import DESCRIPTION, read_config
from accord.models.preflight import Diagnosis
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.records import Turn

ASKED, SAID = Turn("user", "What is the capital of France?"), "The capital of France is Paris."


def card_finding(where: str, role: str) -> Diagnosis:
    """One reply's raw score at both places; nothing to compare where they are one, as in a model trained here."""
    renderer = load_renderer(where)
    prompt, reply = renderer.prompt_ids((ASKED,)), renderer.reply_ids(SAID, (ASKED,))
    messages = [ASKED._asdict(), {"role": "assistant", "content": SAID}]
    theirs = tuple(renderer.tokenizer.apply_chat_template(messages, return_dict=False))
    ours = (*prompt, *reply)
    if ours == theirs or getattr(read_config(where), DESCRIPTION, None):
        return Diagnosis("score", f"{where} is read at the last token of the conversation")
    scorer = Scorer(where, role=role, device=torch.device("cpu"))
    scores = scorer.raw_scores([reply_group(prompt, reply), reply_group(theirs[:1], theirs[1:])], micro_tokens=4096)
    here, there = scores.tolist()
    rest = renderer.tokenizer.decode(theirs[len(ours) :]) if theirs[: len(ours)] == ours else ""
    said = f"{where}: {here:.3f} at the end of the reply, {there:.3f} at the end of what its own template writes"
    remedy = f"{rest!r} follows a reply there" if rest else "the two render the conversation otherwise"
    return Diagnosis("score", said, f"{remedy}; compare scores of one program alone", "note")
