"""What preflight finds in configs and tokenizers, fine or wrong, in its very words; without a run."""

import json
from types import SimpleNamespace

import pytest
from torch import nn

from accord.errors import BadInput
from accord.models import preflight as module
from accord.models.preflight import (
    NEUTRAL,
    Diagnosis,
    generation_findings,
    labels,
    model_findings,
    positions,
    preflight,
    reading_place,
    reference_findings,
    refuse,
    role_finding,
    vocabulary,
)


def config_of(**values):
    text = SimpleNamespace(**{"vocab_size": 8, "max_position_embeddings": 40} | values)
    return SimpleNamespace(get_text_config=lambda: text, **values)


class Token(str):
    """A token as tokenizers have it: its text, and whether it is special."""

    special = True


def tokenizer_of(words, control=(), template="", pad="<pad>", bos=None, eos=None):
    added = {i: Token(name) for name, i in words.items() if name in control}
    return SimpleNamespace(
        get_vocab=lambda: dict(words),
        added_tokens_decoder=added,
        chat_template=template,
        pad_token=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )


@pytest.mark.parametrize(
    ("limit", "longest", "knobs", "said", "level"),
    [
        (40, 40, "--max_length", "w reads 40 tokens, and --max_length is 40", "fine"),
        (40, 41, "--max_length", "w reads 40 tokens, and --max_length is 41", "wrong"),
        (40, 0, "", "w reads 40 tokens", "fine"),
        (None, 41, "--max_length", "w names no longest text", "fine"),
    ],
)
def test_positions(limit, longest, knobs, said, level):
    found = positions("w", config_of(max_position_embeddings=limit), longest, knobs)
    assert found == Diagnosis("positions", said, "give less" if level == "wrong" else "", level)


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        ({"a": 0, "b": 7}, {}, "w: 2 tokens, 8 rows; 6 of them are no token and are never drawn"),
        ({str(i): i for i in range(8)}, {}, "w: 8 tokens, 8 rows"),
        ({str(i): i for i in range(9)}, {"control": ("8",)}, "w: 9 tokens, 8 rows"),
        ({"a": 0, "b": 8}, {}, "w: the tokenizer's b are beyond the 8 rows of the embedding"),
        ({"a": 0, "b": 8}, {"control": ("b",), "template": "x b"}, "w: the tokenizer's b are beyond the 8"),
        ({"a": 0, "b": 8}, {"control": ("b",), "bos": 8}, "w: the tokenizer's b are beyond the 8"),
        ({"a": 0, "b": 8}, {"control": ("b",), "eos": 8}, "w: the tokenizer's b are beyond the 8"),
        ({"e": 12, "d": 11, "c": 10, "b": 9}, {}, "w: the tokenizer's b, c, d are beyond the 8"),
    ],
)
def test_tokens_have_rows_or_are_in_no_text(monkeypatch, words, more, said):
    monkeypatch.setattr(module, "read_tokenizer", lambda where: tokenizer_of(words, **more))
    found = vocabulary("w", config_of())
    assert found.about == "vocabulary" and found.said.startswith(said)
    if "beyond" in said:
        assert found.level == "wrong" and found.remedy.startswith("load it where it was made, resize_token_embeddings")
    else:
        assert found == Diagnosis("vocabulary", said)


@pytest.mark.parametrize(
    ("number", "heads", "said", "level"),
    [
        (1, ["helpful"], "w has 1 score a reply: helpful", "fine"),
        (1, [""], "w has 1 score a reply", "fine"),
        (2, ["a", "b"], "w has 2 scores a reply: a, b", "fine"),
        (5, ["a"], "w has 5 labels (0, 1, 2, 3), and a preference or cost model has one score", "wrong"),
        (1, ["a", "b"], "w has 1 labels (0), and a preference or cost model has one score", "wrong"),
    ],
)
@pytest.mark.parametrize("adapter", [False, True])
def test_a_scorer_has_a_label_for_each_of_its_heads(monkeypatch, number, heads, said, level, adapter):
    monkeypatch.setattr(module, "base_of", lambda where: "base" if adapter else "")
    monkeypatch.setattr(module, "labels_of_adapter", lambda where: number)
    config = SimpleNamespace(num_labels=9 if adapter else number, id2label={i: str(i) for i in range(number)})
    found = labels("w", config, heads)
    remedy = "train it with num_labels=1, or give another model" if level == "wrong" else ""
    assert found == Diagnosis("labels", said, remedy, level)


def test_labels_without_names_are_counted(monkeypatch):
    monkeypatch.setattr(module, "base_of", lambda where: "")
    assert "has 3 labels ()" in labels("w", SimpleNamespace(num_labels=3, id2label=None), ["a"]).said


@pytest.mark.parametrize("linear", [True, False])
def test_a_scorer_is_read_by_a_linear_score(monkeypatch, linear):
    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(2, 1) if linear else nn.Identity()

    made = []
    monkeypatch.setattr(
        module.AutoModelForSequenceClassification, "from_config", lambda config: made.append(Made()) or made[0]
    )
    found = reading_place("w", "config")
    if linear:
        assert found == Diagnosis("head", "w: Made, read at the reply's last token")
        assert made[0].score.weight.is_meta
    else:
        assert found.level == "wrong" and found.said.startswith("w: Made is no decoder with a linear score")
        assert found.remedy == "give a decoder's, or put it behind MODULE:FUNCTION or an http:// address"


OURS = {"a": 0, "b": 1, "<pad>": 2, "c": 3}


@pytest.mark.parametrize(
    ("theirs", "rows", "control", "said"),
    [
        (OURS, 8, (), ""),
        ({**OURS, "<pad>": 7}, 8, ("<pad>",), ""),
        ({"a": 0, "b": 1, "c": 3}, 8, (), ""),
        ({**OURS, "<x>": 5}, 8, ("<x>",), ""),
        ({**OURS, "x": 5}, 8, (), "the reference r has another vocabulary than w: 1 tokens differ"),
        ({**OURS, "b": 5, "x": 1}, 8, (), "the reference r has another vocabulary than w: 2 tokens differ"),
        ({"a": 0, "<pad>": 2, "c": 3}, 8, (), "the reference r has another vocabulary than w: 1 tokens differ"),
        (OURS, 4, (), ""),
        (OURS, 3, (), "r has 3 rows, and the policy's tokens go on to 3"),
    ],
)
def test_a_reference_reads_every_text_in_the_policys_tokens(monkeypatch, theirs, rows, control, said):
    given = {"w": tokenizer_of(OURS), "r": tokenizer_of(theirs, control)}
    monkeypatch.setattr(module, "read_tokenizer", given.get)
    monkeypatch.setattr(module, "read_config", lambda where: config_of(vocab_size={"r": rows, "w": 99}[where]))
    (found,) = reference_findings("w", "r")
    if said:
        remedy = "give a reference of the same tokenizer, or leave it out"
        assert found == Diagnosis("reference", said, remedy, "wrong")
    else:
        assert found == Diagnosis("reference", "r has the policy's vocabulary")


def test_a_model_is_of_the_role_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(module, "describe", lambda where: {"role": "cost"})
    assert role_finding("w", "cost") == Diagnosis("role", "w is a cost model")
    said = "w is a cost model, and a policy model is asked for"
    assert role_finding("w", "policy") == Diagnosis("role", said, "give another", "wrong")


def test_the_first_finding_that_is_wrong_is_refused_with_its_remedy():
    wrong = [Diagnosis("x", f"{number} is odd", "mend it", "wrong") for number in ("one", "two")]
    refuse([Diagnosis("x", "fine"), Diagnosis("x", "known", "so it is", "note")])
    with pytest.raises(BadInput, match=r"^one is odd; mend it$"):
        refuse([Diagnosis("x", "fine"), *wrong])


@pytest.fixture
def looked(monkeypatch):
    """At which models preflight looks, and with what."""
    seen = []
    monkeypatch.setattr(module, "model_findings", lambda where, **more: seen.append((where, more)) or [])
    monkeypatch.setattr(module, "reference_findings", lambda where, other: seen.append((where, other)) or [])
    return seen


def test_models_and_scorers_that_are_read_here_are_looked_at(looked):
    more = {"longest": 9, "knobs": "--max_length"}
    models = {"model": "a", "reward.x": "b", "cost.y": "c", "watch.z": "d", "scorer": "e", "model.n": "f", "data": "g"}
    preflight({**models, "reward.far": "http://x", "cost.own": "m:f"}, **more)
    assert looked == [(name, more) for name in "abcdef"]
    looked.clear()
    preflight({"model": "a", "reference": "a"})
    preflight({"model": "a", "reference": "r"})
    default = {"longest": 0, "knobs": ""}
    assert looked == [("a", default)] * 3 + [("r", default), ("a", "r")]


@pytest.mark.parametrize(("role", "abouts"), [("policy", 2), ("cost", 4)])
def test_of_a_scorer_labels_and_head_are_found_too(monkeypatch, role, abouts):
    told = {"role": role, "criterion": "x"}
    monkeypatch.setattr(module, "read_config", lambda where: "config")
    monkeypatch.setattr(module, "describe", lambda where: told)
    for name in ("positions", "vocabulary", "labels", "reading_place"):
        monkeypatch.setattr(module, name, lambda *given, name=name: (name, *given))
    found = model_findings("w", longest=9, knobs="--k")
    expected = [("positions", "w", "config", 9, "--k"), ("vocabulary", "w", "config")]
    expected += [("labels", "w", "config", ["x"]), ("reading_place", "w", "config")]
    assert found == expected[:abouts]
    assert model_findings("w")[0] == ("positions", "w", "config", 0, "")


def generation(tmp_path, **values):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    return str(tmp_path)


def test_a_generation_config_is_told_where_it_changes_what_is_drawn(tmp_path, monkeypatch):
    where = generation(tmp_path, do_sample=True, **NEUTRAL)
    fine = Diagnosis("generation config", f"{where}: nothing that changes what is drawn")
    assert generation_findings(where) == [fine]
    moved = {"temperature": 0.75, "top_p": 0.5, "top_k": 3, "min_p": 0.25, "repetition_penalty": 1.5}
    where = generation(tmp_path, do_sample=True, **moved, no_repeat_ngram_size=2)
    (found,) = generation_findings(where)
    assert found.said == (
        "a server draws by temperature 0.75, top_p 0.5, top_k 3, min_p 0.25, repetition_penalty 1.5, "
        "no_repeat_ngram_size 2"
    )
    assert found.level == "note" and found.remedy.startswith("Accord draws without them unless told")
    (tmp_path / "generation_config.json").unlink()
    assert generation_findings(where) == [Diagnosis("generation config", f"{where} has none")]
    monkeypatch.setattr(module, "is_gguf", lambda where: True)
    assert generation_findings(where) == []


def test_what_is_neutral_and_what_a_finding_is_by_default():
    assert NEUTRAL == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
    }
    assert Diagnosis("a", "b") == ("a", "b", "", "fine")
