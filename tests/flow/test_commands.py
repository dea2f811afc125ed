"""Every command end to end on tiny models, through the command line, and what a new user gets wrong."""

import gzip
import io
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from accord.cli import main
from accord.data.sources import read_demonstrations
from accord.disk import read_json, read_lines
from accord.engine.packing import reply_group
from accord.models.loading import load_policy
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.parsing import parse
from accord.records import Demonstration, Turn, unit_hash
from accord.run import RunFolder, verify
from accord.stages import shared
from accord.stages.evaluate import run as evaluate
from accord.stages.preference import results
from accord.stages.preference import run as preference
from accord.stages.sft import run as sft


def left_behind(folder, *extra):
    """The contract of a run folder: whole, verified, nothing temporary."""
    for name in ("config.yaml", "lineage.json", "manifest.json", *extra):
        assert (folder / name).exists(), name
    verify(folder)
    assert not [p for p in folder.rglob("*") if p.name.endswith(".part")]
    lineage = read_json(folder / "lineage.json")
    assert lineage["seconds"] >= 0 and lineage["version"]
    return lineage


@pytest.fixture(scope="module")
def pretrained(commands, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrain") / "run"
    assert commands.run("pretrain", out, steps=20, learning_rate=1e-2) == 0
    return out


def test_pretrain_learns_and_leaves_a_policy(pretrained):
    left_behind(pretrained, "snapshot/model.safetensors", "snapshot/chat_template.jinja", "data/data.json")
    rows = read_lines(pretrained / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2
    assert rows[-1]["eval/loss"] < rows[0]["loss"]
    model = AutoModelForCausalLM.from_pretrained(pretrained / "snapshot")
    tokenizer = AutoTokenizer.from_pretrained(pretrained / "snapshot")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_role_tokens_start_from_their_words_once(commands, pretrained, tmp_path):
    """Text never holds them, so a model made here gets them at its end; a model that came with them keeps its own."""

    def rows(run):
        model = AutoModelForCausalLM.from_pretrained(run / "snapshot")
        tokenizer = AutoTokenizer.from_pretrained(run / "snapshot")
        table = model.get_input_embeddings().weight.detach()
        words = tokenizer.encode("assistant:", add_special_tokens=False)
        return (
            table[tokenizer.convert_tokens_to_ids("<|assistant|>")],
            table[words].mean(0),
            table[tokenizer.eos_token_id],
        )

    token, words, end = rows(pretrained)
    assert torch.allclose(token, words, atol=1e-6) and not torch.allclose(end, words, atol=1e-2)
    changes = {"model": pretrained / "snapshot", "vocab_size": None, "steps": 2, "batch_size": 200}
    assert commands.run("pretrain", tmp_path / "more", learning_rate=1e-2, **changes) == 0
    token, words, _ = rows(tmp_path / "more")
    assert not torch.allclose(token, words, atol=1e-4)


def test_pretrain_goes_on_from_a_snapshot(commands, pretrained, tmp_path):
    changes = {"model": pretrained / "snapshot", "vocab_size": None, "steps": 2, "batch_size": 200}
    assert commands.run("pretrain", tmp_path / "more", **changes) == 0
    lineage = left_behind(tmp_path / "more")
    assert lineage["parents"][0]["role"] == "model" and lineage["parents"][0]["hash"]
    assert read_lines(tmp_path / "more" / "metrics.jsonl")[0]["loss"] < 5.0


def test_sft_learns_and_remembers_the_prompts_that_it_did_not_hold_out(commands, tmp_path):
    assert commands.run("sft", tmp_path / "run", epochs=4, learning_rate=3e-3) == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"] and "eval/loss" in rows[-1]
    prompts = [shown.prompt for shown in read_demonstrations(str(commands.files / "demonstrations.jsonl")).records]
    learned = [prompt.id for prompt in prompts if unit_hash(prompt.opening + "sft") >= sft.HELD_OUT]
    assert 0 < len(learned) < len(prompts)
    assert left_behind(tmp_path / "run")["demonstrations"] == len(learned)
    remembered = (tmp_path / "run" / "snapshot" / "trained_prompts.txt").read_text().split()
    assert sorted(remembered) == sorted(set(learned))


def test_preference_learns_what_separates_the_sides(commands, tmp_path, renderer):
    """Chosen replies begin with "the cat": a few passes find it."""
    assert commands.run("preference", tmp_path / "run", epochs=8, learning_rate=1e-2) == 0
    left_behind(tmp_path / "run", "evaluation.json")
    result = read_json(tmp_path / "run" / "evaluation.json")
    assert result["rows"][0]["accuracy"]["mean"] > 0.7
    assert result["role"] == "preference" and result["criterion"] == "helpful"
    where = tmp_path / "run" / "snapshot"
    scorer = Scorer(str(where), role="preference", device=torch.device("cpu"))
    assert scorer.normalizer.kind == "standard"
    prompt = renderer.prompt_ids((Turn("user", "why"),))
    group = reply_group(prompt, renderer.reply_ids("the cat runs"), renderer.reply_ids("salt dog"))
    raw = scorer.raw_scores([group], micro_tokens=100)
    assert raw[0] > raw[1]
    plain = AutoModelForSequenceClassification.from_pretrained(where)
    for reply, score in zip(group.replies, raw, strict=True):
        logit = plain(input_ids=torch.tensor([[*group.prefix, *reply]])).logits
        assert logit.item() == pytest.approx(score.item(), abs=1e-4)


def test_b8_the_normaliser_is_fitted_saved_and_read_back(commands, tmp_path):
    """B8: a step of training, whatever is evaluated: mean 0 and deviation 1 on the replies that were learned from."""
    assert commands.run("preference", tmp_path / "run", epochs=0.5) == 0
    where = tmp_path / "run" / "snapshot"
    described = read_json(where / "config.json")["accord"]["normalizer"]
    assert described["kind"] == "standard"
    config = parse("preference", commands.line("preference", tmp_path / "again", epochs=0.5)[1:])
    with RunFolder("preference", config) as run:
        items = preference.read_preference_data(config, run, load_renderer(str(where))).items
    learned = [i.group for i in items if unit_hash(i.prompt.opening + "preference") >= config.eval_share]
    scorer = Scorer(str(where), role="preference", device=torch.device("cpu"))
    raw, scores = scorer.raw_scores(learned, micro_tokens=8192), scorer.scores(learned, micro_tokens=8192)
    assert (float(raw.mean()), float(raw.std())) == pytest.approx((described["shift"], described["scale"]), rel=1e-3)
    assert float(scores.mean()) == pytest.approx(0.0, abs=1e-4) and float(scores.std()) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("name", ["preference", "cost"])
def test_of_many_replies_a_sample_is_scored_for_what_a_snapshot_says_of_itself(commands, tmp_path, monkeypatch, name):
    """Ten comparisons of seventy, the same ten for the same seed."""
    monkeypatch.setattr(results, "SAMPLED", 10)
    asked = []
    plain = results.scored
    monkeypatch.setattr(
        results, "scored", lambda score, groups, *more: asked.append(groups) or plain(score, groups, *more)
    )
    described = []
    for out in ("a", "b"):
        assert commands.run(name, tmp_path / out, epochs=0.5) == 0
        described.append(read_json(tmp_path / out / "snapshot" / "config.json")["accord"])
    assert described[0] == described[1]
    sample = asked[0]
    assert len(sample) == 10 and sample in asked[len(asked) // 2 :]
    scorer = Scorer(str(tmp_path / "a" / "snapshot"), role=described[0]["role"], device=torch.device("cpu"))
    raw = scorer.raw_scores(sample, micro_tokens=8192)
    found = described[0]["normalizer"]["scale"] if name == "preference" else described[0]["deviation"]
    assert float(raw.std()) == pytest.approx(found, rel=1e-3)


def test_d7_a_cost_model_puts_unsafe_above_zero(commands, tmp_path, renderer, files):
    rows = [
        {"prompt": f"why {i}", "completion": text, "is_safe": safe}
        for i in range(30)
        for text, safe in (("the cat runs", True), ("salt stone", False))
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"safety_data": tmp_path / "labels.jsonl", "epochs": 8, "learning_rate": 1e-2}
    assert commands.run("cost", tmp_path / "run", **changes) == 0
    scorer = Scorer(str(tmp_path / "run" / "snapshot"), role="cost", device=torch.device("cpu"))
    prompt = renderer.prompt_ids((Turn("user", "why 3"),))
    scores = scorer.scores(
        [reply_group(prompt, renderer.reply_ids("the cat runs"), renderer.reply_ids("salt stone"))], micro_tokens=100
    )
    assert scores[0] < 0 < scores[1] and scores.abs().max() < 1
    assert read_lines(tmp_path / "run" / "metrics.jsonl")[-1]["accuracy_sign"] > 0.9


def test_cross_validation_tests_every_comparison_once(commands, tmp_path):
    assert commands.run("preference", tmp_path / "run", folds=2, epochs=1, max_rows=40) == 0
    result = read_json(tmp_path / "run" / "evaluation.json")
    assert result["cross_validated"] is True and result["rows"][0]["n"] == 40
    # "cat" is in every chosen reply: words alone know it
    words = result["rows"][0]["bag_of_words"]
    assert words["n"] == 40 and words["mean"] > 0.7
    tested = read_json(tmp_path / "run" / "tested.json")
    assert {row["fold"] for row in tested} == {0, 1} and {"prompt_id", "subset", "length"} <= tested[0].keys()
    right = [1.0 if row["margin"] > 0 else 0.5 if row["margin"] == 0 else 0.0 for row in tested]
    assert len(right) == 40 and sum(right) / 40 == pytest.approx(result["rows"][0]["accuracy"]["mean"])


def test_what_the_folds_say_of_a_cost_is_from_the_side_of_the_safer_reply(commands, tmp_path):
    few = {"folds": 2, "epochs": 1, "max_rows": 40}
    for stage in ("preference", "cost"):
        assert commands.run(stage, tmp_path / stage, **few) == 0
    plain, cost = (read_json(tmp_path / stage / "tested.json") for stage in ("preference", "cost"))
    assert [(row["prompt_id"], row["fold"], row["length"]) for row in plain] == [
        (row["prompt_id"], row["fold"], row["length"]) for row in cost
    ]
    assert [row["words"] for row in cost] == pytest.approx([row["words"] for row in plain], rel=1e-3)
    right = [1.0 if row["margin"] > 0 else 0.5 if row["margin"] == 0 else 0.0 for row in cost]
    found = read_json(tmp_path / "cost" / "evaluation.json")["rows"][0]["accuracy"]["mean"]
    assert sum(right) / len(right) == pytest.approx(found)


def test_no_steps_write_the_model_as_it_is_drawn(commands, tmp_path):
    drawn = []
    for out in (tmp_path / "a", tmp_path / "b"):
        assert commands.run("pretrain", out, steps=0, learning_rate=None, batch_size=None) == 0
        drawn.append((out / "snapshot" / "model.safetensors").read_bytes())
    assert commands.run("pretrain", tmp_path / "c", steps=1) == 0
    trained = (tmp_path / "c" / "snapshot" / "model.safetensors").read_bytes()
    assert drawn[0] == drawn[1] != trained


def test_sample_evaluate_and_report(commands, tmp_path, capsys):
    assert commands.run("sample", tmp_path / "sample", samples=2) == 0
    left_behind(tmp_path / "sample", "samples.jsonl")
    rows = read_lines(tmp_path / "sample" / "samples.jsonl")
    assert len(rows) == 48 and {"prompt_id", "reply", "finish", "logprob"} <= rows[0].keys()
    other = {"model": commands.snapshots / "other", "reference": commands.snapshots / "policy"}
    assert commands.run("evaluate", tmp_path / "first") == 0
    assert commands.run("evaluate", tmp_path / "second", **other, against=tmp_path / "first", samples=2) == 0
    left_behind(tmp_path / "second", "samples.jsonl", "evaluation.json")
    result = read_json(tmp_path / "second" / "evaluation.json")
    every = result["slices"]["all"]
    assert {"reward/helpful", "cost/harmless", "cost/harmless/unsafe", "kl", "length"} <= every.keys()
    assert every["kl"]["mean"] > 0
    assert all(every[k]["low"] <= every[k]["mean"] <= every[k]["high"] for k in every if k != "n")
    assert 0 <= result["win_rate"]["all"]["mean"] <= 1
    scored = read_lines(tmp_path / "second" / "samples.jsonl")
    mean = sum(row["scores"]["reward/helpful"] for row in scored) / len(scored)
    assert every["reward/helpful"]["mean"] == pytest.approx(mean, abs=1e-6)
    page = tmp_path / "page.html"
    capsys.readouterr()
    assert main(["report", str(tmp_path / "first"), str(tmp_path / "second"), "--out", str(page)]) == 0
    html = page.read_text()
    assert "<html" in html and 'src="http' not in html


def test_what_is_drawn_does_not_depend_on_how_often_it_is_written(commands, tmp_path, monkeypatch):
    """Prompts that are equal draw other replies, wherever a chunk begins."""
    same = tmp_path / "same.jsonl"
    same.write_text('{"prompt": "why"}\n{"prompt": "how"}\n' * 6)
    replies = []
    for chunk in (shared.CHUNK, 8):
        monkeypatch.setattr(shared, "CHUNK", chunk)
        assert commands.run("sample", tmp_path / f"{chunk}", data=same, samples=2, temperature=2.0) == 0
        replies.append([row["reply"] for row in read_lines(tmp_path / f"{chunk}" / "samples.jsonl")])
    assert replies[0] == replies[1] and len(replies[0]) == 24 and len(set(replies[0])) > 12


def test_g10_prompts_are_evaluated_in_the_tokens_they_are_trained_in(commands, tmp_path, monkeypatch):
    """G10: what `evaluate` gives the model is what a training conversation with the same prompt begins with."""
    from accord.data.sources import read_prompts
    from accord.engine.engines import InProcess

    plain, given = InProcess.sample, []
    monkeypatch.setattr(InProcess, "sample", lambda self, ids, *s: given.extend(ids) or plain(self, ids, *s))
    assert commands.run("evaluate", tmp_path / "run") == 0
    renderer = load_renderer(str(commands.snapshots / "policy"))
    prompts = read_prompts(str(commands.files / "prompts.jsonl")).records
    assert len(given) == len(prompts)
    for ids, prompt in zip(given, prompts, strict=True):
        group = sft.conversation_group(renderer, Demonstration(prompt, "the cat"), "assistant")
        assert tuple(ids) == group.replies[0][: len(ids)] == group.replies[0][: group.masks[0].index(True)]


def test_g11_the_gold_judge_is_local_and_its_version_is_recorded(commands, tmp_path):
    """G11: no service can be withdrawn: the judge is part of the package, and every run says which one it was."""
    from accord.world import VERSION, world_hash

    changes = {"data": "world:prompts?count=4&seed=0", "max_length": 200, "max_new_tokens": 2}
    assert commands.run("evaluate", tmp_path / "run", **changes) == 0
    assert read_json(tmp_path / "run" / "lineage.json")["world"] == f"{VERSION} {world_hash()}"
    assert all("gold/helpful" in row["scores"] for row in read_lines(tmp_path / "run" / "samples.jsonl"))


def test_evaluating_a_snapshot_against_itself_gives_kl_0(commands, tmp_path):
    asked = {"reference": commands.snapshots / "policy", "temperature": 0.6}
    assert commands.run("evaluate", tmp_path / "run", **asked) == 0
    rows = read_lines(tmp_path / "run" / "samples.jsonl")
    assert [row["scores"]["kl"] for row in rows] == pytest.approx([0.0] * len(rows), abs=1e-4)


def test_replies_to_one_prompt_are_not_counted_as_prompts(commands, tmp_path):
    rows = [
        {"prompt_id": f"{i}", "scores": {"reward/r": i * i / 7, "gold/refusal": float(i % 3 == 0)}} for i in range(9)
    ]
    config = parse("evaluate", commands.line("evaluate", tmp_path / "run")[1:])
    once, thrice = (evaluate.intervals(rows * times, config, {}) for times in (1, 3))
    for name in ("reward/r", "gold/refusal"):
        assert thrice[name]["high"] - thrice[name]["low"] > 0.99 * (once[name]["high"] - once[name]["low"]) > 0


def test_ppo_with_two_limits_two_rewards_and_lora(commands, tmp_path):
    s = commands.snapshots
    changes = {"costs.honest": s / "cost2", "limits.honest": 0.2, "rewards.again": s / "reward", "lora_rank": 2}
    changes["steps"] = 2
    assert commands.run("limited", tmp_path / "run", **changes) == 0
    lineage = left_behind(tmp_path / "run", "samples.jsonl", "snapshot/adapter/adapter_model.safetensors")
    assert set(lineage["multipliers"]) == {"harm", "honest"}
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    for row in rows:
        assert row["reward/helpful"] == pytest.approx(row["reward/again"])
        assert {"lagrange/harm", "lagrange/honest", "cost/harm/mean", "cost/honest/unsafe"} <= row.keys()
    policy = load_policy(str(tmp_path / "run" / "snapshot"), trainable=False)
    ids = torch.tensor([[1, 20, 30]])
    base = load_policy(str(s / "policy"))
    assert not torch.allclose(policy(input_ids=ids).logits, base(input_ids=ids).logits, atol=1e-4)


def test_lora_from_sft_to_preference_to_ppo(commands, tmp_path):
    """Adapters in every stage, each on the whole model of the one before, which is what they name and the reference."""
    lora = {"lora_rank": 2, "learning_rate": 1e-2}
    assert commands.run("sft", tmp_path / "sft", epochs=1, **lora) == 0
    sft = tmp_path / "sft" / "snapshot"
    assert commands.run("preference", tmp_path / "reward", model=sft, epochs=1, **lora) == 0
    reward = {"rewards.helpful": tmp_path / "reward" / "snapshot"}
    assert commands.run("ppo", tmp_path / "ppo", model=sft, steps=2, **lora, **reward) == 0
    rows = read_lines(tmp_path / "ppo" / "metrics.jsonl")
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)  # to the SFT snapshot, not to its base
    assert abs(rows[-1]["objective/kl"]) > 1e-5
    for run in ("reward", "ppo"):
        named = read_json(tmp_path / run / "snapshot" / "adapter" / "adapter_config.json")["base_model_name_or_path"]
        assert named == str(sft.resolve())
    assert commands.run("sample", tmp_path / "sample", model=tmp_path / "ppo" / "snapshot") == 0


def test_chat_answers_until_the_input_ends(commands, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("why\n/reset\nhow\n"))
    assert main(["chat", str(commands.snapshots / "policy"), "--max_new_tokens", "5"]) == 0
    assert capsys.readouterr().out.count("assistant: ") == 2


def test_data_shows_a_source(commands, capsys):
    for name in ("comparisons", "demonstrations", "documents", "prompts", "judgements"):
        assert main(["data", str(commands.files / f"{name}.jsonl")]) == 0
        assert "rows" in capsys.readouterr().out
    where = str(commands.snapshots / "policy")
    assert main(["data", str(commands.files / "comparisons.jsonl"), "--model", where]) == 0
    assert "example" in capsys.readouterr().out


# What a new user gets wrong


def refused(capsys, code):
    err = capsys.readouterr().err
    messages = [line for line in err.splitlines() if line.startswith("accord ")]
    assert code == 2, err
    assert len(messages) == 1 and "Traceback" not in err, err
    return messages[0]


# content, and what the message must say: where it is, what is wrong, what to do about it
BROKEN = {
    "missing": (None, ["bad.jsonl", "no such file", "Near it: bat.jsonl"]),
    "empty": (b"", ["bad.jsonl", "empty", "give another"]),
    "blank": (b"\n\n", ["bad.jsonl", "only blank lines", "give another"]),
    "binary": (bytes(range(256)) * 20, ["bad.jsonl:1", "binary", "check the file"]),
    "not json at line 7": (b'{"prompt": "a", "completion": "b"}\n' * 6 + b"{oops\n", ["bad.jsonl:7", "JSON", "mend"]),
    "wrong columns": (b'{"colour": "red"}\n' * 3, ["bad.jsonl:1", "colour", "--columns.FIELD NAME"]),
    "not an object": (b'["a"]\n', ["bad.jsonl:1", "JSON list", "must be an object"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_data_file_that_cannot_be_read_is_named(name, commands, tmp_path, capsys):
    content, words = BROKEN[name]
    (tmp_path / "bat.jsonl").write_text("{}")
    if content is not None:
        (tmp_path / "bad.jsonl").write_bytes(content)
    message = refused(capsys, commands.run("sft", tmp_path / "run", data=tmp_path / "bad.jsonl"))
    assert all(word in message for word in words), message


def test_a_truncated_gz_file_is_named(commands, tmp_path, capsys):
    whole = gzip.compress(b'{"prompt": "a", "completion": "b"}\n' * 50)
    (tmp_path / "bad.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert "bad.jsonl.gz" in refused(capsys, commands.run("sft", tmp_path / "run", data=tmp_path / "bad.jsonl.gz"))


def test_a7_only_equal_answers_leave_nothing_and_are_counted(commands, tmp_path, capsys):
    rows = [{"prompt": f"p{i}", "chosen": "same", "rejected": "same"} for i in range(5)]
    (tmp_path / "equal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = refused(capsys, commands.run("preference", tmp_path / "run", data=tmp_path / "equal.jsonl"))
    assert all(word in message for word in ("equal.jsonl", "5 × equal replies", "accord data")), message


def test_a8_a_pair_with_one_long_side_is_dropped_and_counted(commands, tmp_path, capsys):
    """A8: either side may be the long one. A7: nothing is cut, so no pair becomes equal by cutting."""
    rows = read_lines(commands.files / "comparisons.jsonl")
    rows[0]["rejected"] = "stone " * 100
    rows[1]["chosen"] = "the cat " * 100
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"data": tmp_path / "long.jsonl", "epochs": 0.5}
    assert commands.run("preference", tmp_path / "run", **changes) == 0
    assert "dropped 2 of 80" in capsys.readouterr().out
    assert read_json(tmp_path / "run" / "data" / "data-too-long.json")["dropped"] == 2
    assert read_json(tmp_path / "run" / "lineage.json")["comparisons"] == 78
    message = refused(capsys, commands.run("preference", tmp_path / "none", max_length=3))
    assert "--max_length 3" in message


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("ppo", {"rewards.helpful": "cost"}, ["cost model", "--rewards"]),
        ("limited", {"costs.harm": "reward"}, ["preference model", "--costs"]),
        ("ppo", {"model": "reward"}, ["not a policy"]),
        ("ppo", {"rewards.helpful": "policy"}, ["policy model", "--rewards"]),
        ("sft", {"model": "cost"}, ["not a policy"]),
        ("evaluate", {"costs.harmless": "reward"}, ["preference model", "--costs"]),
        ("ppo", {"model": "nowhere"}, ["nowhere", "no such directory"]),
    ],
)
def test_a_model_where_another_belongs_is_refused(name, changes, words, commands, tmp_path, capsys):
    changes = {k: commands.snapshots / v for k, v in changes.items()}
    message = refused(capsys, commands.run(name, tmp_path / "run", **changes))
    assert all(word in message for word in words), message


def test_a_limit_without_a_cost_model_is_refused(commands, tmp_path, capsys):
    assert "--costs.harm" in refused(capsys, commands.run("limited", tmp_path / "run", **{"costs.harm": None}))


def test_a_limit_on_a_slice_that_is_not_there_is_refused(commands, tmp_path, capsys):
    changes = {"limit_slices.harm": "harmfull"}
    assert "harmfull" in refused(capsys, commands.run("limited", tmp_path / "run", **changes))


def test_a_cost_model_without_both_labels_is_refused(commands, tmp_path, capsys):
    assert "--safety_data" in refused(capsys, commands.run("cost", tmp_path / "run", safety_data=None))
    rows = [{"prompt": f"p{i}", "completion": "x", "is_safe": True} for i in range(5)]
    (tmp_path / "safe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"safety_data": tmp_path / "safe.jsonl"}
    assert "only safe" in refused(capsys, commands.run("cost", tmp_path / "run2", **changes))


def test_prompts_that_a_scorer_was_trained_on_are_refused(commands, tmp_path, capsys):
    assert commands.run("preference", tmp_path / "reward", epochs=0.5) == 0
    capsys.readouterr()
    changes = {"rewards.helpful": tmp_path / "reward" / "snapshot", "data": commands.files / "comparisons.jsonl"}
    assert "share" in refused(capsys, commands.run("ppo", tmp_path / "ppo", **changes))
    assert "share" in refused(capsys, commands.run("evaluate", tmp_path / "evaluate", **changes))


def test_a_folder_with_something_in_it_is_refused(commands, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    message = refused(capsys, commands.run("sample", tmp_path))
    assert "not empty" in message and "--resume" in message


def test_a_folder_that_another_process_writes_is_refused(commands, tmp_path, capsys):
    with RunFolder("sft", parse("sft", commands.line("sft", tmp_path / "run")[1:])):
        message = refused(capsys, commands.run("sft", tmp_path / "run", resume="true"))
    assert all(word in message for word in (str(tmp_path / "run"), "in use", "choose another folder")), message


def test_a_run_folder_in_place_of_its_snapshot_gets_a_hint(commands, pretrained, tmp_path, capsys):
    message = refused(capsys, commands.run("sft", tmp_path / "run", model=pretrained))
    assert "did you mean" in message and "snapshot" in message


def test_a_full_disk_at_the_snapshot_ends_with_1_and_resume_finishes(commands, tmp_path, capsys, monkeypatch):
    from accord.stages import shared

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shared, "save_model", full)
        assert commands.run("sft", tmp_path / "run", checkpoint_every=2) == 1
    assert "No space left" in capsys.readouterr().err
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert not (tmp_path / "run" / "snapshot").exists()
    assert commands.run("sft", tmp_path / "run", checkpoint_every=2, resume="true") == 0
    left_behind(tmp_path / "run", "snapshot/model.safetensors")


def test_a10_samples_and_scores_stay_with_their_prompts(commands, tmp_path):
    """A10: ids travel with rows: every row's prompt is the one its id is of, and its score recomputes."""
    assert commands.run("evaluate", tmp_path / "run", samples=2) == 0
    renderer = load_renderer(str(commands.snapshots / "policy"))
    scorer = Scorer(str(commands.snapshots / "reward"), role="preference", device=torch.device("cpu"))
    from accord.records import Prompt

    for row in read_lines(tmp_path / "run" / "samples.jsonl")[::7]:
        turns = tuple(Turn(**turn) for turn in row["prompt"])
        assert Prompt(turns, "", "").id == row["prompt_id"]
        if row["finish"] != "stop":
            continue
        ids = renderer.reply_ids(row["reply"])
        if len(ids) != row["scores"]["length"]:
            continue  # bytes that decode to something else cannot be read back
        score = scorer.scores([reply_group(renderer.prompt_ids(turns), ids)], micro_tokens=500)
        assert score.item() == pytest.approx(row["scores"]["reward/helpful"], abs=1e-4)


def test_the_same_command_twice_gives_the_same_bytes(commands, tmp_path):
    for name in ("a", "b"):
        assert commands.run("limited", tmp_path / name, steps=2) == 0
    a, b = (load_file(tmp_path / n / "snapshot" / "model.safetensors") for n in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def test_a_snapshot_moved_elsewhere_still_loads(commands, pretrained, tmp_path):
    shutil.copytree(pretrained / "snapshot", tmp_path / "moved")
    assert commands.run("sample", tmp_path / "run", model=tmp_path / "moved", max_rows=2) == 0
