"""What does not fit together, found before anything is trained: from configs and tokenizers alone, in a second.

Every stage asks it of the models that it is given (`preflight`), and ends there with what to mend; `accord check`
shows all that was looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from accord.errors import BadInput
from accord.models.places import (
    base_of,
    describe,
    heads_of,
    is_gguf,
    labels_of_adapter,
    most_positions,
    read_config,
    read_generation,
    read_tokenizer,
    reading,
)
from accord.models.saving import without_contradictions
from accord.models.scorers import is_elsewhere

SCORERS = ("reward", "cost", "watch", "scorer")  # parents of a run that score replies
# what a server takes from the model's own generation config where a request leaves it open, and what changes nothing
NEUTRAL: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}


class Diagnosis(NamedTuple):
    """One thing that was looked at: what it is `about`, what was found, and where it is not fine what mends it.

    A `note` is to be known; what is `wrong` ends a run before it begins.
    """

    about: str
    said: str
    remedy: str = ""
    level: Literal["fine", "note", "wrong"] = "fine"


def preflight(models: Mapping[str, str], *, longest: int = 0, knobs: str = "") -> None:
    """Look at the models of a run by the names of their roles: model, reference, reward.NAME, cost.NAME, model.NAME ….

    `longest` is the number of tokens that `knobs` let one of them read at once. Raises BadInput for the first thing
    that is wrong.
    """
    for role, where in models.items():
        kind = role.partition(".")[0]
        if kind not in ("model", "reference", *SCORERS) or is_elsewhere(where):
            continue
        refuse(model_findings(where, longest=longest, knobs=knobs))
    if models.get("reference", models.get("model")) != models.get("model"):
        refuse(reference_findings(models["model"], models["reference"]))


def refuse(findings: Iterable[Diagnosis]) -> None:
    """Raise BadInput for the first finding that is wrong."""
    for finding in findings:
        if finding.level == "wrong":
            raise BadInput(f"{finding.said}; {finding.remedy}")


def model_findings(where: str, *, longest: int = 0, knobs: str = "") -> list[Diagnosis]:
    """What config and tokenizer of one model say, whatever its role."""
    config, described = read_config(where), describe(where)
    found = [positions(where, config, longest, knobs), vocabulary(where, config)]
    if described["role"] != "policy":
        found += [labels(where, config, heads_of(described)), reading_place(where, config)]
    return found


def role_finding(where: str, role: str) -> Diagnosis:
    """Whether a model is of the role that it is given for."""
    found = describe(where)["role"]
    if found == role:
        return Diagnosis("role", f"{where} is a {role} model")
    return Diagnosis("role", f"{where} is a {found} model, and a {role} model is asked for", "give another", "wrong")


def positions(where: str, config: Any, longest: int, knobs: str) -> Diagnosis:
    """Whether the model reads as many tokens as the knobs let a text have."""
    limit = most_positions(config)
    if not limit:
        return Diagnosis("positions", f"{where} names no longest text")
    if longest <= limit:
        return Diagnosis(
            "positions", f"{where} reads {limit} tokens" + (f", and {knobs} is {longest}" if knobs else "")
        )
    return Diagnosis("positions", f"{where} reads {limit} tokens, and {knobs} is {longest}", "give less", "wrong")


def vocabulary(where: str, config: Any) -> Diagnosis:
    """Whether every token that a text or the chat template can have stands in the embedding."""
    rows = int(config.get_text_config().vocab_size)
    tokenizer = read_tokenizer(where)
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    template = str(tokenizer.chat_template or "")
    written = {i for i in control if str(tokenizer.added_tokens_decoder[i]) in template}
    written |= {i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None}
    tokens = tokenizer.get_vocab()
    beyond = sorted(name for name, i in tokens.items() if i >= rows and (i not in control or i in written))
    if beyond:
        said = f"{where}: the tokenizer's {', '.join(beyond[:3])} are beyond the {rows} rows of the embedding"
        remedy = "load it where it was made, resize_token_embeddings(len(tokenizer)), and save both again"
        return Diagnosis("vocabulary", said, remedy, "wrong")
    unused = rows - len({i for i in tokens.values() if i < rows})
    rest = f"; {unused} of them are no token and are never drawn" if unused else ""
    return Diagnosis("vocabulary", f"{where}: {len(tokens)} tokens, {rows} rows{rest}")


def labels(where: str, config: Any, heads: Sequence[str]) -> Diagnosis:
    """Whether a scorer's head is one score for each of its heads."""
    found = labels_of_adapter(where) if base_of(where) else int(config.num_labels)
    if found == len(heads):
        names = f": {', '.join(heads)}" if any(heads) else ""
        return Diagnosis("labels", f"{where} has {found} score{'s' if found > 1 else ''} a reply{names}")
    named = ", ".join(str(name) for name in list((config.id2label or {}).values())[:4])
    said = f"{where} has {found} labels ({named}), and a preference or cost model has one score"
    return Diagnosis("labels", said, "train it with num_labels=1, or give another model", "wrong")


def reading_place(where: str, config: Any) -> Diagnosis:
    """Whether a scorer is a decoder that is read behind the reply's last token."""
    with reading(where, "a sequence classifier"), torch.device("meta"):
        model: Any = AutoModelForSequenceClassification.from_config(config)
    if isinstance(getattr(model, "score", None), nn.Linear):
        return Diagnosis("head", f"{where}: {type(model).__name__}, read at the reply's last token")
    said = f"{where}: {type(model).__name__} is no decoder with a linear score at the reply's last token"
    remedy = "give a decoder's, or put it behind MODULE:FUNCTION or an http:// address"
    return Diagnosis("head", said, remedy, "wrong")


def reference_findings(where: str, reference: str) -> list[Diagnosis]:
    """Whether a policy's token ids mean the same to its reference, which reads every text in the same pieces."""
    tokenizer, its = read_tokenizer(where), read_tokenizer(reference)
    # PAD is no part of it: it fills slots, and may have been added in one place alone
    ours, theirs = tokenizer.get_vocab(), its.get_vocab()
    mine = {name: i for name, i in ours.items() if name != tokenizer.pad_token}
    rows = int(read_config(reference).get_text_config().vocab_size)
    other = {name for name, i in mine.items() if theirs.get(name) != i}
    # it may have further control tokens, but with further words it would have cut texts otherwise
    words = (name for name, i in theirs.items() if i not in its.added_tokens_decoder)
    other |= {name for name in words if ours.get(name) != theirs[name]}
    lost = [name for name, i in mine.items() if i >= rows]
    if not other and not lost:
        return [Diagnosis("reference", f"{reference} has the policy's vocabulary")]
    said = (
        f"the reference {reference} has another vocabulary than {where}: {len(other)} tokens differ"
        if other
        else f"{reference} has {rows} rows, and the policy's tokens go on to {max(mine.values())}"
    )
    return [Diagnosis("reference", said, "give a reference of the same tokenizer, or leave it out", "wrong")]


def generation_findings(where: str) -> list[Diagnosis]:
    """What a server that reads the model's generation config would draw by, and what of it cannot be saved."""
    if is_gguf(where):
        return []
    config = read_generation(where)
    if config is None:
        return [Diagnosis("generation config", f"{where} has none")]
    found = []
    said = {key: value for key in NEUTRAL if (value := getattr(config, key, None)) not in (None, NEUTRAL[key])}
    if said:
        listed = ", ".join(f"{key} {value:g}" for key, value in said.items())
        remedy = "Accord draws without them unless told; a request to a server must name each, or it takes them"
        found.append(Diagnosis("generation config", f"a server draws by {listed}", remedy, "note"))
    dropped = without_contradictions(config)[1]
    if dropped:
        remedy = "they contradict the rest; snapshots are saved without them"
        found.append(Diagnosis("generation config", f"{', '.join(dropped)} cannot be saved", remedy, "note"))
    return found or [Diagnosis("generation config", f"{where}: nothing that changes what is drawn")]
