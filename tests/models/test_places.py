"""What a place is and what its files say of it: directories, adapters and their bases, hub names; and what is saved."""

import errno
import json
import shutil
import stat
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig, LlamaConfig

from accord.engine.forward.adapters import bare
from accord.errors import BadInput
from accord.models import places
from accord.models.loading import load_policy
from accord.models.places import (
    DESCRIPTION,
    POLICY,
    adapter_beside,
    asked_for,
    base_of,
    describe,
    heads_of,
    is_gguf,
    labels_of_adapter,
    most_positions,
    read_config,
    read_generation,
    reading,
    refuse_hub_adapter,
    whole_name,
)
from accord.models.policy import new_policy
from accord.models.saving import (
    add_to_description,
    agree_on_tokens,
    listed,
    save_model,
    save_weights,
    without_contradictions,
)
from accord.models.tokenizer import embed_roles, load_renderer, served_stops


def written(file, found):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(found if isinstance(found, str) else json.dumps(found))
    return str(file.parent)


def model_at(folder, **more):
    return written(folder / "config.json", {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **more})


def adapter_at(folder, base, **more):
    return written(folder / "adapter_config.json", {"base_model_name_or_path": base, **more})


# Places


def test_a_place_is_a_directory_of_a_model_or_an_adapter_or_a_name_on_the_hub(tmp_path):
    for where in (model_at(tmp_path / "model"), adapter_at(tmp_path / "adapter", "x/y")):
        assert asked_for(where) == (where, {})
    assert asked_for("owner/name") == ("owner/name", {})
    assert asked_for("owner/name@abc") == ("owner/name", {"revision": "abc"})
    (tmp_path / "file.bin").write_text("x")
    (tmp_path / "empty").mkdir()
    model_at(tmp_path / "run" / "snapshot")
    for where, words in (
        (tmp_path / "file.bin", r"file\.bin is a file; a snapshot is a directory, or one file NAME\.gguf"),
        (tmp_path / "empty", r"empty: no config\.json there, so it is no snapshot$"),
        (tmp_path / "run", r"run: no config\.json there, so it is no snapshot; did you mean .*/run/snapshot\?"),
        (tmp_path / "gone", r"gone: no such directory \(and not a hub id of the form OWNER/NAME"),
    ):
        with pytest.raises(BadInput, match=words):
            asked_for(str(where))


def test_a_file_of_llama_cpp_is_told_by_its_name_and_being_there(tmp_path, monkeypatch):
    file = tmp_path / "Tiny.GGUF"
    assert not is_gguf(str(file))
    file.write_bytes(b"x")
    assert is_gguf(str(file)) and not is_gguf(model_at(tmp_path / "model.gguf"))
    (tmp_path / "other.bin").write_bytes(b"x")
    assert not is_gguf(str(tmp_path / "other.bin"))
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: name if name == "gguf" else None)
    assert asked_for(str(file)) == (str(tmp_path), {"gguf_file": "Tiny.GGUF"})
    assert describe(str(file)) == POLICY and describe(str(file)) is not POLICY and read_generation(str(file)) is None
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"Tiny\.GGUF: reading GGUF needs gguf; install it with: pip install"):
        asked_for(str(file))


def test_a_directory_is_named_whole_and_what_is_none_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_at(tmp_path / "model")
    assert whole_name("model") == str(tmp_path.resolve() / "model") and whole_name("owner/name") == "owner/name"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("first\nsecond"), r"here: cannot be loaded as a model \(first\)$"),
        (KeyError(), r"as a model \(KeyError\)$"),
        (OSError("no file named x.safetensors"), r"x\.safetensors\); weights are read from safetensors alone"),
        (ValueError("no file named x.safetensors"), r"x\.safetensors\)$"),
        (OSError("no such thing"), r"no such thing\)$"),
    ],
)
def test_what_a_library_says_is_bad_input_in_one_line(error, words):
    with pytest.raises(BadInput, match=words), reading("here", "a model"):
        raise error


def test_a_full_disk_stays_what_it_is():
    with pytest.raises(OSError, match="full"), reading("here", "a model"):
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize(("limit", "expected"), [(40, 40), (None, 0)])
def test_the_longest_text_is_the_configs(limit, expected):
    text = SimpleNamespace(max_position_embeddings=limit)
    assert most_positions(SimpleNamespace(get_text_config=lambda: text)) == expected
    assert most_positions(SimpleNamespace(get_text_config=SimpleNamespace)) == 0


# What files say


@pytest.mark.parametrize(
    ("architecture", "told", "role"),
    [
        ("LlamaForCausalLM", None, "policy"),
        ("LlamaForSequenceClassification", None, "preference"),
        ("LlamaForCausalLM", {"role": "policy", "criterion": "x"}, "policy"),
        ("LlamaForSequenceClassification", {"role": "cost", "criterion": "x"}, "cost"),
        ("LlamaForSequenceClassification", {"role": "policy", "criterion": "x"}, "preference"),
        ("LlamaForCausalLM", {"role": "cost", "criterion": "x"}, "policy"),
    ],
)
def test_a_description_holds_where_it_fits_the_class(tmp_path, architecture, told, role):
    more = {"accord": told} if told else {}
    where = model_at(tmp_path / "m", **{"architectures": [architecture], **more})
    fits = told is not None and role == told["role"]
    assert describe(where) == (told if fits else {**POLICY, "role": role})


def test_a_file_of_before_says_what_a_model_is_and_must_be_json(tmp_path):
    where = model_at(tmp_path / "m")
    written(tmp_path / "m" / "accord.json", {"role": "cost", "criterion": "x"})
    assert describe(where) == {"role": "cost", "criterion": "x"}
    written(tmp_path / "m" / "accord.json", "{")
    with pytest.raises(BadInput, match=r"accord\.json: not valid JSON .*make the snapshot again"):
        describe(where)


def test_an_adapter_is_a_policy_or_a_classifier_by_its_task(tmp_path):
    base = model_at(tmp_path / "base")
    assert describe(adapter_at(tmp_path / "a", base, task_type="SEQ_CLS")) == {**POLICY, "role": "preference"}
    assert describe(adapter_at(tmp_path / "b", base, task_type="CAUSAL_LM")) == POLICY
    assert describe(adapter_at(tmp_path / "c", base)) == POLICY


def test_heads_are_those_named_or_the_criterion():
    assert heads_of({"criterion": "x", "heads": ["a", "b"]}) == ["a", "b"] and heads_of({"criterion": "x"}) == ["x"]


def test_the_base_of_an_adapter_is_where_it_says_or_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = model_at(tmp_path / "base")
    assert base_of(base) == ""
    assert base_of(adapter_at(tmp_path / "a" / "b", base)) == base
    assert base_of(adapter_at(tmp_path / "a" / "c", "base")) == "base"
    model_at(tmp_path / "a" / "near")
    assert base_of(adapter_at(tmp_path / "a" / "d", "../near")) == str(tmp_path / "a" / "near")
    assert base_of(adapter_at(tmp_path / "e", "owner/name", revision="abc")) == "owner/name@abc"
    assert base_of(adapter_at(tmp_path / "f", "owner/name")) == "owner/name"
    assert base_of(adapter_at(tmp_path / "g", base, revision="abc")) == base
    (tmp_path / "bare").mkdir()
    assert base_of(adapter_at(tmp_path / "h", str(tmp_path / "bare"))) == str(tmp_path / "bare")
    for name, said in (("../gone", r"\.\./gone"), (None, r"\(none is named\)")):
        with pytest.raises(
            BadInput, match=f"its base {said} is not there; set base_model_name_or_path in adapter_conf"
        ):
            base_of(adapter_at(tmp_path / "i" / "j", name))


def test_adapters_beside_a_snapshot_are_those_on_the_model_that_is_asked_about(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, where = model_at(tmp_path / "base"), model_at(tmp_path / "scorer")
    assert adapter_beside(where, base) == ""
    adapter_at(tmp_path / "scorer" / "adapter", base)
    assert adapter_beside(where, base) == adapter_beside(where, "base") == f"{where}/adapter"
    assert adapter_beside(where, "") == "" and adapter_beside(where, model_at(tmp_path / "other")) == ""


def test_the_labels_of_an_adapter_are_the_rows_of_its_head(tmp_path):
    lora = {"layer.lora_A.weight": torch.zeros(7, 2), "layer.lora_B.weight": torch.zeros(2, 7)}
    for name, more, expected in (
        ("a", {"score.weight": torch.zeros(3, 4), "score.bias": torch.zeros(5)}, 3),
        ("b", {}, 1),
    ):
        (tmp_path / name).mkdir()
        save_file(lora | more, tmp_path / name / "adapter_model.safetensors")
        assert labels_of_adapter(str(tmp_path / name)) == expected


def test_an_adapter_on_the_hub_is_to_be_downloaded(tmp_path, monkeypatch):
    asked = []
    found = {"owner/plain": None, "owner/adapter": "there"}
    monkeypatch.setattr(
        places, "cached_file", lambda name, file, **more: asked.append((name, file, more)) or found[name]
    )
    refuse_hub_adapter(adapter_at(tmp_path / "a", "x/y"))
    assert asked == []
    refuse_hub_adapter("owner/plain@abc")
    quiet = [f"_raise_exceptions_for_{what}" for what in ("missing_entries", "gated_repo", "connection_errors")]
    assert asked == [("owner/plain", "adapter_config.json", {"revision": "abc", **dict.fromkeys(quiet, False)})]
    with pytest.raises(BadInput, match="owner/adapter is an adapter: download it, and give the directory"):
        refuse_hub_adapter("owner/adapter")


def test_a_config_is_asked_for_once_and_again_when_its_file_says_something_else(tmp_path, monkeypatch):
    asked = []
    plain = AutoConfig.from_pretrained
    here = model_at(tmp_path / "here", hidden_size=64)

    def ask(name, revision):
        asked.append((name, revision))
        return plain(here)

    monkeypatch.setattr(places.AutoConfig, "from_pretrained", ask)
    first = read_config(here)
    first.hidden_size = 3  # what a caller does to it is its own
    assert read_config(here).hidden_size == 64 and asked == [(here, "main")]
    model_at(tmp_path / "here", hidden_size=32)
    assert read_config(here).hidden_size == 32 and asked == [(here, "main")] * 2
    for _ in range(2):
        read_config("once/asked")
        read_config("once/asked@abc")
    assert asked[2:] == [("once/asked", "main"), ("once/asked", "abc")]


def test_config_and_generation_config_of_an_adapter_are_its_own_or_its_bases(tmp_path):
    base = model_at(tmp_path / "base", hidden_size=64)
    where = adapter_at(tmp_path / "a", base)
    assert read_config(where).hidden_size == 64 and read_generation(where) is None and read_generation(base) is None
    written(tmp_path / "base" / "generation_config.json", {"eos_token_id": 5})
    assert read_generation(where).eos_token_id == read_generation(base).eos_token_id == 5
    assert served_stops(where) == [5]
    written(tmp_path / "a" / "generation_config.json", {"eos_token_id": [6, 7]})
    assert served_stops(where) == [6, 7]
    with pytest.raises(BadInput, match="bad: cannot be loaded as a Hugging Face model"):
        read_config(model_at(tmp_path / "bad", model_type="no such"))
    with pytest.raises(BadInput, match=r"odd: cannot be loaded as a Hugging Face model \(.*validate_architecture"):
        read_config(model_at(tmp_path / "odd", hidden_size=48, num_attention_heads=32))


def test_without_a_generation_config_the_config_says_where_a_model_stops(tmp_path):
    assert served_stops(model_at(tmp_path / "m", eos_token_id=9)) == [9]


# What is saved


def test_token_ids_are_written_in_three_ways():
    assert (listed(None), listed(7), listed([7, 0])) == ([], [7], [7, 0])


def test_what_contradicts_the_values_before_it_by_name_is_left_out():
    config = GenerationConfig(do_sample=False, temperature=0.3, max_new_tokens=9, repetition_penalty=1.2)
    kept, dropped = without_contradictions(config)
    assert dropped == ["temperature"] and kept.temperature == GenerationConfig().temperature
    assert (kept.max_new_tokens, kept.repetition_penalty) == (9, 1.2)
    drawn = GenerationConfig(do_sample=True, temperature=0.3)
    kept, dropped = without_contradictions(drawn)
    assert dropped == [] and (kept.do_sample, kept.temperature) == (True, 0.3)


def test_a_description_is_added_to(tmp_path):
    where = model_at(tmp_path / "m", accord={"role": "cost", "deviation": 1.0})
    add_to_description(tmp_path / "m", {"deviation": 0.5, "more": [1]})
    text = (tmp_path / "m" / "config.json").read_text()
    assert json.loads(text)["accord"] == {"role": "cost", "deviation": 0.5, "more": [1]} and text.endswith("}\n")
    assert text.startswith('{\n  "model_type"') and where


def test_configs_agree_with_the_tokenizer_on_what_ends_and_fills(tokenizer, renderer):
    generation = GenerationConfig(eos_token_id=[40, 41])
    model = SimpleNamespace(config=LlamaConfig(), generation_config=generation)
    agree_on_tokens(model, tokenizer)
    ends = [renderer.end, *sorted(({*renderer.stops, 40, 41}) - {renderer.end})]
    for config in (model.config, generation):
        assert config.eos_token_id == ends and len(ends) > 2
        assert (config.pad_token_id, config.bos_token_id) == (tokenizer.pad_token_id, tokenizer.bos_token_id)
    scorer = SimpleNamespace(config=LlamaConfig())
    agree_on_tokens(scorer, tokenizer)
    own = [renderer.end, *sorted(renderer.stops - {renderer.end})]
    assert scorer.config.eos_token_id == (own if len(own) > 1 else own[0])


class Refuses:
    """A model whose weights are saved where its generation config can be."""

    def __init__(self, config, always=False):
        self.generation_config, self.always, self.saved = config, always, []

    def save_pretrained(self, folder):
        if self.always or getattr(self.generation_config, "temperature", None) == 0.3:
            raise ValueError("cannot be saved")
        self.saved.append(folder)


def test_of_a_generation_config_what_can_be_saved_is(capsys):
    model = Refuses(GenerationConfig(do_sample=False, temperature=0.3))
    save_weights(model, "folder")
    assert model.saved == ["folder"] and "left out temperature, which contradict" in capsys.readouterr().out
    for config in (None, SimpleNamespace(temperature=0.3), GenerationConfig()):
        with pytest.raises(ValueError, match="cannot be saved"):
            save_weights(Refuses(config, always=True), "folder")


def test_every_file_of_a_snapshot_may_be_read_by_others(snapshots, tokenizer, tmp_path, monkeypatch):
    model = load_policy(str(snapshots / "policy"))
    assert all(parameter.requires_grad for parameter in model.parameters())
    save_model(model, tokenizer, tmp_path / "again", {**POLICY, "criterion": "x"}, "the card\n")
    files = [file for file in (tmp_path / "again").rglob("*") if file.is_file()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o644}
    assert (tmp_path / "again" / "README.md").read_text() == "the card\n" and not (
        tmp_path / "again" / "adapter"
    ).exists()
    assert describe(str(tmp_path / "again")) == {**POLICY, "criterion": "x"}


# Tokenizers


def test_a_role_starts_as_the_mean_of_its_words(snapshots, renderer):
    model = load_policy(str(snapshots / "policy"))
    table = bare(model).get_input_embeddings().weight
    words = renderer.role_words()
    assert words and all(len(ids) > 1 for ids in words.values())
    before = table.detach().clone()
    embed_roles(model, renderer)
    for token, ids in words.items():
        assert torch.allclose(table[token], before[list(ids)].mean(0), atol=1e-6)
    others = [i for i in range(len(table)) if i not in words]
    assert torch.equal(table[others], before[others])


def test_what_is_wrong_with_a_template_is_said_with_the_place(snapshots, tmp_path):
    where = shutil.copytree(snapshots / "policy", tmp_path / "odd")
    (where / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(BadInput, match=f"^{where}: the chat template cannot be read"):
        load_renderer(str(where))
    told = load_renderer(str(snapshots / "policy"))
    assert told.tokenizer.pad_token == told.padding()


def test_what_a_snapshot_is_stands_in_its_config_and_its_card_beside_it(tokenizer, nano, tmp_path):
    described = {"role": "policy", "criterion": "", "normalizer": {"kind": "none"}, "of": 3}
    save_model(new_policy(nano, tokenizer, max_length=16, seed=0), tokenizer, tmp_path, described, "a card")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config[DESCRIPTION] == described == describe(str(tmp_path))
    assert config["pad_token_id"] == tokenizer.pad_token_id and config["bos_token_id"] == tokenizer.bos_token_id
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "a card"
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}
