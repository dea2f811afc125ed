"""`accord dpo` on tiny models: references, caches, batches, what is measured, and what is refused."""

import json
import math
from dataclasses import replace

import pytest
import torch

from accord.cli import main
from accord.disk import read_json, read_lines
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import Group, pack, reply_group
from accord.errors import BadInput
from accord.evaluation.metrics import definition
from accord.models import reference as references
from accord.models import scalar
from accord.models.loading import load_policy
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.objectives.implicit import sequence_logprobs
from accord.records import Judgement, Prompt, Turn
from accord.run import RunFolder, verify
from accord.stages.dpo.config import DIRECT_LOSSES, LISTWISE, UNPAIRED, Dpo
from accord.stages.dpo.implicit import HeldOut
from accord.stages.dpo.items import Choice, DirectItem, prefer_safe, read_direct_data
from accord.stages.dpo.margins import score_margins
from accord.stages.dpo.run import frozen_model, make_reference
from accord.training.distributed import World
from accord.training.order import batch_indices

LN2 = math.log(2)
MEASURES_NOTHING = {"kl_prompts": None, "max_new_tokens": None}
ALONE = World(0, 1, torch.device("cpu"))


def rows_of(folder):
    return read_lines(folder / "metrics.jsonl")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(commands, tmp_path_factory):
    out = tmp_path_factory.mktemp("dpo") / "run"
    assert commands.run("dpo", out, epochs=8, learning_rate=1e-2, beta=0.3, eval_every=5) == 0
    return out


@pytest.fixture(scope="module")
def plain(commands, tmp_path_factory):
    """A run of the commands' own comparisons."""
    out = tmp_path_factory.mktemp("plain") / "run"
    assert commands.run("dpo", out, **MEASURES_NOTHING) == 0
    return out


@pytest.fixture(scope="module")
def adapted(commands, tmp_path_factory):
    """A snapshot that is an adapter, by SFT: its reference is not its base."""
    out = tmp_path_factory.mktemp("sft") / "run"
    assert commands.run("sft", out, lora_rank=2, epochs=2, learning_rate=1e-2) == 0
    return out / "snapshot"


@pytest.fixture(scope="module")
def against_base(adapted, commands, tmp_path_factory):
    """A run from that adapter, measured against its base."""
    out = tmp_path_factory.mktemp("base") / "run"
    base = commands.snapshots / "policy"
    assert commands.run("dpo", out, model=adapted, reference=base, **MEASURES_NOTHING) == 0
    return out


def test_dpo_learns_what_separates_the_sides(trained):
    """Chosen replies begin with "the cat": the policy finds it, held-out prompts included."""
    verify(trained)
    rows = rows_of(trained)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1
    assert rows[-1]["eval/rewards/accuracies"] > 0.9
    result = read_json(trained / "evaluation.json")
    assert result["role"] == "implicit" and result["criterion"] == "helpful"
    assert result["rows"][0]["accuracy"]["mean"] > 0.9 and result["bins"]
    assert result["kl"]["n"] == 4 and result["sqrt_kl"] == pytest.approx(math.sqrt(max(result["kl"]["mean"], 0)))
    samples = read_lines(trained / "samples.jsonl")
    assert sum(row["kl"] for row in samples) / 4 == pytest.approx(result["kl"]["mean"])
    assert load_policy(str(trained / "snapshot")) is not None
    assert (trained / "snapshot" / "trained_prompts.txt").read_text()


def test_the_drift_is_the_change_of_the_held_out_log_probs(trained, commands):
    """Recomputed from the two snapshots and the prompts that the run held out."""
    result = read_json(trained / "evaluation.json")
    config = Dpo(model=str(commands.snapshots / "policy"), data=str(commands.files / "comparisons.jsonl"), out="unused")
    renderer = load_renderer(config.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "write_json", lambda *_: None)
        held_out = read_direct_data(config, RunFolder("dpo", config), renderer).held_out
    sums = []
    for where in (commands.snapshots / "policy", trained / "snapshot"):
        packing = pack([item.group for item in held_out])
        with torch.no_grad():
            values = token_logprobs(load_policy(str(where)), packing)
        sums.append(sequence_logprobs(values, packing.owner, packing.replies, "sum").view(-1, 2))
    drift = (sums[1] - sums[0]).mean(0)
    assert result["eval/logps/chosen_drift"] == pytest.approx(drift[0].item(), abs=1e-4)
    assert result["eval/logps/rejected_drift"] == pytest.approx(drift[1].item(), abs=1e-4)


REFERENCES = {
    "kept": {},
    "frozen": {"cache_reference": "false"},
    "given": {"reference": "policy"},
    "given, anew": {"reference": "policy", "cache_reference": "false"},
    "adapter": {"lora_rank": 2},
    "adapter off": {"lora_rank": 2, "cache_reference": "false"},
    "refreshed": {"refresh_every": 2},
}


REFERENCES_IN_SLOW = ("frozen", "given", "given, anew", "adapter", "refreshed")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in REFERENCES_IN_SLOW else n for n in REFERENCES]
)
def test_e4_rewards_are_0_at_the_first_step_and_the_loss_is_ln_2(name, commands, tmp_path):
    """E4: exactly 0, and whatever kind of reference it is. Many micro-batches, so that their cut matters too."""
    changes = dict(REFERENCES[name])
    if "reference" in changes:
        changes["reference"] = commands.snapshots / changes["reference"]
    assert commands.run("dpo", tmp_path / "run", micro_tokens=200, max_rows=40, **changes, **MEASURES_NOTHING) == 0
    first, second = rows_of(tmp_path / "run")[:2]
    assert first["rewards/chosen"] == first["rewards/rejected"] == first["rewards/margins"] == 0.0
    assert first["rewards/accuracies"] == 0.5
    assert first["loss"] == pytest.approx(LN2, abs=1e-6)
    assert second["rewards/chosen"] != 0.0


ADAPTERS = [{}]
ADAPTERS += [
    pytest.param(changes, marks=pytest.mark.slow)
    for changes in ({"cache_reference": "false"}, {"lora_rank": 2}, {"refresh_every": 3})
]
ADAPTERS += [{"lora_rank": 2, "cache_reference": "false"}]


@pytest.mark.parametrize("changes", ADAPTERS)
def test_e4_the_reference_of_an_sft_adapter_is_that_adapter_not_its_base(
    changes, adapted, against_base, commands, tmp_path
):
    assert commands.run("dpo", tmp_path / "run", model=adapted, **changes, **MEASURES_NOTHING) == 0
    first = rows_of(tmp_path / "run")[0]
    assert first["rewards/chosen"] == first["rewards/rejected"] == 0.0
    # against the base it would not be 0
    assert rows_of(against_base)[0]["rewards/chosen"] != 0.0


def test_kept_frozen_and_switched_off_references_give_the_same_numbers(commands, tmp_path):
    for name, changes in {"kept": {}, "anew": {"cache_reference": "false"}}.items():
        for rank in (0, 2):
            changes |= {"lora_rank": rank, "max_rows": 40, **MEASURES_NOTHING}
            assert commands.run("dpo", tmp_path / f"{name}{rank}", **changes) == 0
    for rank in (0, 2):
        a, b = (rows_of(tmp_path / f"{name}{rank}") for name in ("kept", "anew"))
        for row, other in zip(a, b, strict=True):
            for key in ("loss", "rewards/chosen", "rewards/margins", "grad_norm"):
                assert row[key] == pytest.approx(other[key], abs=1e-4), key


def test_a_refreshed_reference_is_the_policy_and_the_rewards_begin_at_0_again(commands, tmp_path):
    """TR-DPO with mix 1: at steps 3 and 5 the reference has just become the policy."""
    assert commands.run("dpo", tmp_path / "run", refresh_every=2, epochs=2, **MEASURES_NOTHING) == 0
    rewards = [row["rewards/margins"] for row in rows_of(tmp_path / "run")]
    assert [value == 0.0 for value in rewards] == [i % 2 == 0 for i in range(len(rewards))] and len(rewards) == 6


def test_follow_moves_the_reference_by_its_share():
    policy, frozen = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    policy.weight.data.fill_(3.0)
    frozen.weight.data.fill_(1.0)
    frozen.bias.data.fill_(7.0)
    policy.bias.requires_grad_(False)
    references.follow(frozen, policy, 0.25)
    assert frozen.weight.item() == 1.5 and frozen.bias.item() == 7.0


def test_e5_what_is_kept_is_named_by_weights_precision_and_tokens_on_every_rank(commands, tmp_path, monkeypatch):
    """E5: nothing of rank, run or batch is in a name; other weights or precision are another file."""
    seen = []

    def kept(store, groups, world, compute):
        seen.append((store.key, {name for own in references.entry_names(groups) for name in own}))
        return [torch.zeros(len(group.replies)) for group in groups]

    monkeypatch.setattr("accord.stages.dpo.run.kept_sums", kept)

    def names(rank=0, **changes):
        values = {"model": str(commands.snapshots / "policy"), "data": str(commands.files / "comparisons.jsonl")}
        config = Dpo(out=str(tmp_path / str(len(seen))), **{**values, **changes})
        with RunFolder("dpo", config) as run:
            material = read_direct_data(config, run, load_renderer(config.model))
            policy = load_policy(config.model)
            world = World(rank, 2, torch.device("cpu"))
            make_reference(config, run, world, policy, frozen_model(config, policy, world), material)
        return seen[-1]

    same = names()
    assert names(rank=1) == same
    assert names(beta=0.7, learning_rate=1.0, loss="ipo") == names(seed=1) == names(batch_size=7) == same
    fewer = names(max_rows=40)
    assert fewer[0] == same[0] and fewer[1] < same[1]
    others = [
        names(model=str(commands.snapshots / "other")),
        names(reference=str(commands.snapshots / "other")),
        names(precision="bf16"),
    ]
    # the same weights read the same tokens, whatever they are named
    assert others[0] == others[1] and len({same[0], *(key for key, _ in others)}) == 3
    assert {frozenset(replies) for _, replies in others} == {frozenset(same[1])}
    assert names(reference=str(commands.snapshots / "policy")) == same


def test_e5_an_entry_is_of_one_prompt_and_one_reply():
    a, b = Group((1, 2), ((3,), (4, 5)), ()), Group((1,), ((2, 3),), ())
    ((first, second), (third,)) = references.entry_names([a, b])
    assert len({first, second, third}) == 3
    assert references.entry_names([Group([1, 2], ([4, 5],), ())]) == [[second]]


def test_e5_a_cache_is_read_where_it_fits_and_a_wrong_or_broken_file_is_not(commands, tmp_path, monkeypatch):
    """E5: a second run computes nothing; what stands under another key, or half a file, is never taken for it."""
    shared = tmp_path / "shared"
    few = {"reference_cache": shared, "max_rows": 24, **MEASURES_NOTHING}
    assert commands.run("dpo", tmp_path / "first", **few) == 0
    (file,) = shared.iterdir()
    computed = []
    plain = references.reply_sums

    def counted(logprobs, groups, parts, world):
        computed.append(sum(map(len, parts)))
        return plain(logprobs, groups, parts, world)

    monkeypatch.setattr("accord.stages.dpo.run.reply_sums", counted)
    assert commands.run("dpo", tmp_path / "second", **few) == 0
    assert commands.run("dpo", tmp_path / "shuffled", seed=3, batch_size=7, **few) == 0
    assert computed == [] and rows_of(tmp_path / "first")[0]["loss"] == rows_of(tmp_path / "second")[0]["loss"]
    good = file.read_bytes()
    other = {"reference": commands.snapshots / "other"}
    assert commands.run("dpo", tmp_path / "third", **few, **other) == 0
    theirs = next(f for f in shared.iterdir() if f != file)
    for number, content in enumerate((theirs.read_bytes(), good[: len(good) // 2], b"")):
        computed.clear()
        file.write_bytes(content)
        assert commands.run("dpo", tmp_path / f"again{number}", **few) == 0
        assert computed and file.read_bytes() == good
        assert rows_of(tmp_path / f"again{number}")[0]["rewards/chosen"] == 0.0


def test_what_is_missing_of_a_cache_is_computed_and_added(commands, tmp_path, monkeypatch):
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    assert commands.run("dpo", tmp_path / "few", reference_cache=shared, max_rows=20, **MEASURES_NOTHING) == 0
    computed = []
    plain = references.kept_sums

    def watched(store, groups, world, compute):
        def counted(missing):
            computed.append((len(missing), len(groups)))
            return compute(missing)

        return plain(store, groups, world, counted)

    monkeypatch.setattr("accord.stages.dpo.run.kept_sums", watched)
    assert commands.run("dpo", tmp_path / "all", reference_cache=shared, max_rows=40, **MEASURES_NOTHING) == 0
    assert commands.run("dpo", tmp_path / "fresh", reference_cache=alone, max_rows=40, **MEASURES_NOTHING) == 0
    (partly, of_all), (every, groups) = computed
    assert 0 < partly < of_all == groups == every
    (one,), (other,) = (list(folder.iterdir()) for folder in (shared, alone))
    assert one.name == other.name
    weights = references.weights_hash(load_policy(str(commands.snapshots / "policy")))
    first, second = (references.ReplyStore(folder, weights, "f32").read() for folder in (shared, alone))
    assert first and first.keys() == second.keys()
    assert all(first[name] == pytest.approx(second[name], abs=1e-4) for name in first)


def test_score_fills_the_cache_and_dpo_then_asks_the_reference_nothing(commands, plain, tmp_path, monkeypatch):
    """One forward pass of a policy over the comparisons serves both; held-out replies too."""
    line = ["score", "--data", str(commands.files / "comparisons.jsonl"), "--threads", "1"]
    line += ["--models.sft", str(commands.snapshots / "policy")]
    assert main([*line, "--out", str(tmp_path / "scores")]) == 0
    asked = []

    def refuse(*_):
        asked.append(1)
        raise AssertionError("the reference was asked")

    monkeypatch.setattr("accord.stages.dpo.run.reply_sums", refuse)
    filled = {"reference_cache": tmp_path / "scores" / "reference", **MEASURES_NOTHING}
    assert commands.run("dpo", tmp_path / "filled", **filled) == 0
    assert not asked
    own, filled = rows_of(plain), rows_of(tmp_path / "filled")
    assert [row["loss"] for row in filled] == pytest.approx([row["loss"] for row in own], abs=1e-4)
    # at another temperature the log-probs are not the reference's
    assert main([*line, "--out", str(tmp_path / "warm"), "--temperature", "2"]) == 0
    assert not (tmp_path / "warm" / "reference").exists()


def test_e6_measuring_twice_gives_the_same_and_a_file_is_rendered_as_the_held_out_part_is(commands, tmp_path):
    """E6: nothing is done to the held-out comparisons by measuring them, or by naming them as --eval_data."""
    values = {"model": str(commands.snapshots / "policy"), "data": str(commands.files / "comparisons.jsonl")}
    config = Dpo(out=str(tmp_path / "one"), **values)
    renderer = load_renderer(config.model)
    with RunFolder("dpo", config) as run:
        material = read_direct_data(config, run, renderer)
    model = load_policy(config.model)
    zeros = [torch.zeros(2) for _ in material.held_out]
    held_out = HeldOut(config, ALONE, lambda packing: token_logprobs(model, packing), material.held_out, zeros)
    before = [item.group for item in held_out.items]
    with torch.no_grad():
        assert held_out.measure() == held_out.measure()
        assert held_out.summarise() == held_out.summarise()
    assert [item.group for item in held_out.items] == before
    texts = [(item.prompt.turns[0].content, *item.texts) for item in material.held_out]
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in texts]
    named = Dpo(out=str(tmp_path / "two"), eval_data=str(write(tmp_path / "eval.jsonl", rows)), **values)
    with RunFolder("dpo", named) as run:
        again = read_direct_data(named, run, renderer)
    assert [item.group for item in again.held_out] == before
    assert [item.id for item in again.items] == [item.id for item in material.items]


def ranked(commands, path):
    """Rankings of two and of three replies."""
    rows = []
    for i, row in enumerate(read_lines(commands.files / "comparisons.jsonl")[:40]):
        replies, ranks = [row["chosen"], row["rejected"], f"{row['rejected']} and salt"], [1, 2, 3]
        rows.append({"prompt": row["prompt"], "responses": replies[: 2 + i % 2], "ranks": ranks[: 2 + i % 2]})
    return write(path, rows)


CUT = ["aot", "kto", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dpo", "ipo", "bco", "plackett_luce"))]


@pytest.mark.parametrize("name", CUT)
def test_e7_how_a_batch_is_cut_changes_nothing(name, commands, tmp_path):
    """E7: micro-batches of one, two and three comparisons, and one of all: same losses, same gradients."""
    data = ranked(commands, tmp_path / "rankings.jsonl")
    found = []
    changes = {"data": data, "loss": name, "batch_size": 12, "max_rows": 26, **MEASURES_NOTHING}
    for tokens in (1, 60, 90, 10_000):
        out = tmp_path / str(tokens)
        assert commands.run("dpo", out, micro_tokens=tokens, **changes) == 0
        found.append(rows_of(out))
    for rows in found[:-1]:
        for row, other in zip(rows, found[-1], strict=True):
            assert row.keys() == other.keys()
            for key in set(row) - {"tokens_per_second"}:
                assert row[key] == pytest.approx(other[key], rel=1e-3, abs=2e-5), key


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_e7_small_batches_train(size, commands, tmp_path):
    assert commands.run("dpo", tmp_path / "run", batch_size=size, max_rows=8, loss="kto", eval_share=0.3) == 0
    assert all(math.isfinite(row["loss"]) for row in rows_of(tmp_path / "run"))


ALONE_IN_QUICK = ("dpo", "kto", "plackett_luce")
EACH = [n if n in ALONE_IN_QUICK else pytest.param(n, marks=pytest.mark.slow) for n in DIRECT_LOSSES]


@pytest.mark.parametrize("name", EACH)
def test_every_loss_by_its_name(name, commands, tmp_path):
    data = ranked(commands, tmp_path / "rankings.jsonl")
    assert commands.run("dpo", tmp_path / "run", data=data, loss=name, epochs=2, kl_prompts=2) == 0
    rows = rows_of(tmp_path / "run")
    assert all(definition(key) for key in rows[-1]), "every name stands in docs/metrics.md"
    assert rows[0][f"loss/{name}"] == rows[0]["loss"] and all(math.isfinite(row["loss"]) for row in rows)
    if name != "nll" and DIRECT_LOSSES[name][0] not in (UNPAIRED, LISTWISE):
        assert {"rewards/chosen", "rewards/accuracies", "logps/rejected"} <= rows[0].keys()
    result = read_json(tmp_path / "run" / "evaluation.json")
    assert {"accuracy", "ece"} <= result["rows"][0].keys() and "kl" in result


def test_every_loss_of_pairs_is_logged_by_its_name_beside_the_others(commands, tmp_path):
    names = [name for name, (family, *_) in DIRECT_LOSSES.items() if family not in (UNPAIRED, LISTWISE)]
    changes = {"loss": None, **{f"loss.{name}": 1.0 for name in names}, "kl_prompts": 2, "beta": 0.1}
    assert commands.run("dpo", tmp_path / "run", **changes) == 0
    rows = rows_of(tmp_path / "run")
    assert len(names) > 15 and all(definition(key) for key in rows[-1])
    for row in rows:
        assert row["loss"] == pytest.approx(sum(row[f"loss/{name}"] for name in names), rel=1e-5)
        assert all(math.isfinite(row[f"loss/{name}"]) for name in names)
    assert {"rewards/chosen", "rewards/accuracies", "logps/rejected"} <= rows[0].keys()


def test_losses_add_up_by_their_weights_and_are_logged_apart(commands, tmp_path):
    changes = {"loss": None, "loss.dpo": 0.8, "loss.bco_pair": 0.2, "loss.nll": 1.0, "beta": 0.2}
    assert commands.run("dpo", tmp_path / "run", **changes) == 0
    for row in rows_of(tmp_path / "run"):
        parts = 0.8 * row["loss/dpo"] + 0.2 * row["loss/bco_pair"] + row["loss/nll"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5)


def test_kto_takes_single_labels_and_its_kl_is_0_at_the_start(commands, tmp_path):
    changes = {"data": None, "unpaired_data": commands.files / "judgements.jsonl", "criterion": "harmless"}
    assert commands.run("dpo", tmp_path / "run", loss="kto", **changes, **MEASURES_NOTHING) == 0
    rows = rows_of(tmp_path / "run")
    assert rows[0]["kto/kl"] == 0.0 and rows[0]["loss"] == pytest.approx(0.5)
    assert "rows" not in read_json(tmp_path / "run" / "evaluation.json")
    both = {"data": commands.files / "comparisons.jsonl", "unpaired_data": changes["unpaired_data"]}
    assert commands.run("dpo", tmp_path / "both", loss="bco", **both, **MEASURES_NOTHING) == 0
    assert rows_of(tmp_path / "both")[-1]["eval/rewards/accuracies"] >= 0


def test_the_strength_of_a_choice_becomes_a_margin(commands, tmp_path):
    rows = read_lines(commands.files / "comparisons.jsonl")
    data = write(tmp_path / "strong.jsonl", [{**row, "margin": 2.0} for row in rows])
    assert commands.run("dpo", tmp_path / "run", data=data, strength_margin=0.5, **MEASURES_NOTHING) == 0
    assert rows_of(tmp_path / "run")[0]["loss"] == pytest.approx(math.log(1 + math.exp(1.0)), abs=1e-6)


SIDES = ("chosen", "rejected")
SHAPES = {
    "HH transcripts": lambda r: {side: f"\n\nHuman: {r['prompt']}\n\nAssistant: {r[side]}" for side in SIDES},
    "conversations": lambda r: {
        "prompt": [{"role": "user", "content": r["prompt"]}],
        "chosen": [{"role": "assistant", "content": r["chosen"]}],
        "rejected": [{"role": "assistant", "content": r["rejected"]}],
    },
}


@pytest.mark.parametrize("shape", ["HH transcripts", pytest.param("conversations", marks=pytest.mark.slow)])
def test_hugging_face_shapes_train_to_the_same_numbers(shape, commands, plain, tmp_path):
    rows = [SHAPES[shape](row) for row in read_lines(commands.files / "comparisons.jsonl")]
    shaped = {"data": write(tmp_path / "data.jsonl", rows), **MEASURES_NOTHING}
    assert commands.run("dpo", tmp_path / "shaped", **shaped) == 0
    a, b = rows_of(tmp_path / "shaped"), rows_of(plain)
    assert [row["loss"] for row in a] == [row["loss"] for row in b]


class Told:
    """Log-probs of two held-out comparisons as they are told."""

    def __init__(self, commands, tmp_path, capsys):
        values = {"model": str(commands.snapshots / "policy"), "data": str(commands.files / "comparisons.jsonl")}
        config = Dpo(out=str(tmp_path / "run"), **values)
        with RunFolder("dpo", config) as run:
            items = read_direct_data(config, run, load_renderer(config.model)).items[:4]
        capsys.readouterr()
        start = [torch.tensor([-5.0, -5.0])] * 4
        self.held_out = HeldOut(config, ALONE, lambda packing: torch.zeros(0), items, start)
        self.capsys = capsys

    def measure(self, *sums):
        self.held_out._sums = lambda: [torch.tensor(pair) for pair in sums]
        result = self.held_out.measure()
        return result, self.capsys.readouterr().out


def test_a_warning_when_the_chosen_become_less_probable_while_the_margin_grows(commands, tmp_path, capsys):
    told = Told(commands, tmp_path, capsys)
    result, said = told.measure([-4.0, -6.0], [-4.5, -5.5], [-4.0, -5.0], [-4.0, -6.5])
    assert result["eval/displacement"] == 0.0 and not said
    assert result["eval/logps/chosen_drift"] == pytest.approx(0.875)
    # both fall together: the margin does not grow
    result, said = told.measure(*[[-7.0, -6.0]] * 4)
    assert result["eval/displacement"] == 0.0 and not said
    # down on the whole, but within the noise of four prompts
    result, said = told.measure([-9.0, -9.5], [-1.5, -2.0], [-8.0, -9.0], [-2.0, -4.0])
    assert result["eval/logps/chosen_drift"] < 0 and result["eval/displacement"] == 0.0 and not said
    result, said = told.measure([-6.0, -8.0], [-6.5, -9.0], [-6.0, -9.5], [-7.0, -8.0])
    assert result["eval/displacement"] == 1.0 and "less probable (-1.38 nats)" in said and "(+2.25)" in said
    # once is enough
    assert told.measure(*[[-7.0, -9.0]] * 4)[1] == ""


REFUSED = {
    "no such loss": ({"loss": "dpoo"}, ["dpoo", "there are dpo"]),
    "an option that is not read": ({"loss_options.alpha": 0.5}, ["--loss_options.alpha", "dpo does not read it"]),
    "an unknown option": ({"loss_options.gamma": 0.5}, ["--loss_options.gamma"]),
    "an option out of range": (
        {"loss": "robust", "loss_options.label_smoothing": 0.5},
        ["label_smoothing", "between 0 and 0.5"],
    ),
    "families mixed": ({"loss": None, "loss.dpo": 1, "loss.kto": 1}, ["--loss: kto compares single replies"]),
    "a weight of 0": ({"loss": None, "loss.dpo": 1, "loss.nll": 0}, ["--loss: nll 0", "above 0"]),
    "a margin nobody reads": (
        {"loss": "ipo", "strength_margin": 1},
        ["--strength_margin has no effect with --loss ipo"],
    ),
    "a reference nobody reads": (
        {"loss": "simpo", "reference": "x/y"},
        ["--reference has no effect with --loss simpo"],
    ),
    "a refresh of a given reference": ({"refresh_every": 2, "reference": "x/y"}, ["--refresh_every"]),
    "a cache of what is not kept": (
        {"cache_reference": "false", "reference_cache": "c"},
        ["--reference_cache has no effect with --cache"],
    ),
    "a scorer nobody reads": ({"costs.harm": "x/y"}, ["harm is not used", "--limits.harm"]),
    "a limit without a cost": ({"limits.harm": 0}, ["--limits.harm", "--costs.harm"]),
    "a safety margin without labels": ({"safety_margin": 1}, ["--safety_margin", "--safety_data"]),
    "safety labels for single replies": ({"safety_data": "x.jsonl", "loss": "kto"}, ["--safety_data", "kto"]),
    "no data": ({"data": None}, ["--data"]),
    "single replies for pairs": ({"unpaired_data": "x.jsonl"}, ["--unpaired_data", "kto"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_loads(name, commands, tmp_path, capsys):
    changes, words = REFUSED[name]
    assert commands.run("dpo", tmp_path / "run", **changes) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not (tmp_path / "run").exists()


def test_data_that_say_nothing_are_counted_and_refused(commands, tmp_path, capsys):
    rows = [{"prompt": f"why {i}", "responses": ["the cat", "a dog"], "ranks": [1, 1]} for i in range(6)]
    assert commands.run("dpo", tmp_path / "run", data=write(tmp_path / "ties.jsonl", rows)) == 2
    out = capsys.readouterr()
    assert "dropped 6 of 6 comparisons as ties" in out.out and "--criterion helpful" in out.err
    only = [{"prompt": f"why {i}", "completion": "the cat", "label": True} for i in range(6)]
    changes = {"data": None, "unpaired_data": write(tmp_path / "good.jsonl", only), "loss": "kto"}
    changes |= MEASURES_NOTHING
    assert commands.run("dpo", tmp_path / "run2", **changes) == 2
    assert "good and bad" in capsys.readouterr().err


def test_a8_a_pair_with_one_long_side_is_dropped_and_counted_here_too(commands, tmp_path, capsys):
    rows = read_lines(commands.files / "comparisons.jsonl")
    rows[0]["rejected"] = "stone " * 100
    rows[1]["chosen"] = "the cat " * 100
    assert commands.run("dpo", tmp_path / "run", data=write(tmp_path / "long.jsonl", rows), **MEASURES_NOTHING) == 0
    assert "dropped 2 of" in capsys.readouterr().out


def an_item(ranks, *texts):
    n = range(len(ranks))
    choices = tuple(Choice(i, j, 0.25) for i in n for j in n if ranks[i] < ranks[j])
    prompt = Prompt((Turn("user", "why"),), "", "file")
    return DirectItem(prompt, texts, reply_group((1,), *([k] for k in n)), ranks, id="id", choices=choices)


def label(text, safe):
    return Judgement(Prompt((Turn("user", "why"),), "", "file"), text, "harmless", "safe", float(safe), "x", "", 0.0)


def test_safedpo_lets_the_safe_reply_win_and_drops_pairs_of_two_unsafe_ones(capsys):
    labels = [label("bad", False), label("worse", False), label("good", True), label("fine", True)]
    items = [
        an_item((1, 2), "bad", "good"),
        an_item((1, 2), "good", "bad"),
        an_item((1, 2), "good", "fine"),
        an_item((1, 2), "bad", "worse"),
        an_item((1, 2), "bad", "unlabelled"),
        an_item((1, 2, 3), "bad", "good", "worse"),
    ]
    kept = prefer_safe(items, labels, 2.0)
    assert [item.pairs for item in kept] == [((1, 0),), ((0, 1),), ((0, 1),), ((0, 1),), ((1, 0), (1, 2))]
    margins = [[choice.margin for choice in item.choices] for item in kept]
    assert margins == [[2.25], [2.25], [0.25], [0.25], [2.25, 2.25]]
    assert "7 pairs with both labels; 2 turned round, 2 of two unsafe" in capsys.readouterr().out
    with pytest.raises(BadInput, match="labels no reply"):
        prefer_safe(items, labels[:1], 0.0)
    with pytest.raises(BadInput, match="nothing is left"):
        prefer_safe(items[3:4], labels, 0.0)


def test_a_soft_label_gives_the_expected_loss(commands, tmp_path):
    """Of a pair and of the same pair turned round: DPO on it is cDPO with ε = 1 − p."""
    rows = read_lines(commands.files / "comparisons.jsonl")
    soft = {"data": write(tmp_path / "soft.jsonl", [{**row, "probability": 0.8} for row in rows])}
    soft |= {"epochs": 2, **MEASURES_NOTHING}
    assert commands.run("dpo", tmp_path / "soft", **soft) == 0
    smooth = {"loss": "cdpo", "loss_options.label_smoothing": 0.2, "epochs": 2, **MEASURES_NOTHING}
    assert commands.run("dpo", tmp_path / "smooth", **smooth) == 0
    losses = [[row["loss"] for row in rows_of(tmp_path / name)] for name in ("soft", "smooth")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("loss", ["aot", pytest.param("kto", marks=pytest.mark.slow)])
def test_a_loss_without_soft_labels_says_that_it_takes_plain_answers(commands, tmp_path, capsys, loss):
    rows = read_lines(commands.files / "comparisons.jsonl")
    soft = {"data": write(tmp_path / "soft.jsonl", [{**row, "probability": 0.8} for row in rows[:40]])}
    assert commands.run("dpo", tmp_path / "soft", loss=loss, **soft, **MEASURES_NOTHING) == 0
    assert f"{loss} has no soft labels: " in capsys.readouterr().out
    assert commands.run("dpo", tmp_path / "plain", loss=loss, max_rows=40, **MEASURES_NOTHING) == 0
    assert rows_of(tmp_path / "soft")[-1]["loss"] == pytest.approx(rows_of(tmp_path / "plain")[-1]["loss"], abs=1e-6)


def test_a_safety_label_is_sure_whatever_the_soft_label_said():
    item = replace(an_item((1, 2), "bad", "good"), probability=0.6)
    other = replace(an_item((1, 2), "fine", "good"), probability=0.6)
    kept = prefer_safe([item, other], [label("bad", False), label("good", True), label("fine", True)], 0.0)
    assert [(i.pairs, i.probability) for i in kept] == [(((1, 0),), 1.0), (((0, 1),), 0.6)]


def test_safety_labels_reach_the_loss(commands, tmp_path, capsys):
    """Every pair is of a safe and an unsafe reply: the first loss is that of the margin."""
    rows = read_lines(commands.files / "comparisons.jsonl")
    labels = [{"prompt": r["prompt"], "completion": r[s], "is_safe": s == "rejected"} for r in rows for s in SIDES]
    changes = {"safety_data": write(tmp_path / "labels.jsonl", labels), "safety_margin": 2.0}
    assert commands.run("dpo", tmp_path / "run", **changes, **MEASURES_NOTHING) == 0
    assert "66 pairs with both labels; 66 turned round" in capsys.readouterr().out
    assert rows_of(tmp_path / "run")[0]["loss"] == pytest.approx(math.log(1 + math.exp(2.0)), abs=1e-6)


def test_modpo_margins_are_score_differences_and_limits_are_checked(commands, tmp_path, capsys, monkeypatch):
    """Margins recomputed with the scorers; a cost counts against a reply."""
    s = commands.snapshots
    weights = {"margin_weights.again": 0.5, "margin_weights.harm": 2.0}
    changes = {"rewards.again": s / "reward", "costs.harm": s / "cost", **weights, "limits.harm": 1e6, "kl_prompts": 6}
    passes = []
    plain = scalar.cut_by_tokens
    with monkeypatch.context() as patch:
        patch.setattr(scalar, "cut_by_tokens", lambda *given: passes.append(plain(*given)) or passes[-1])
        assert commands.run("dpo", tmp_path / "run", **changes) == 0
    assert len(passes) > 2 and all(len(parts) == 1 for parts in passes), "many replies in one pass"
    assert "limit harm 1e+06: met" in capsys.readouterr().out
    config = Dpo(
        model=str(s / "policy"),
        data=str(commands.files / "comparisons.jsonl"),
        out=str(tmp_path / "again"),
        rewards={"again": str(s / "reward")},
        costs={"harm": str(s / "cost")},
        margin_weights={"again": 0.5, "harm": 2.0},
    )
    renderer = load_renderer(config.model)
    with RunFolder("dpo", config) as run:
        items = read_direct_data(config, run, renderer).items
    scored = score_margins(config, items, renderer, ALONE.device)
    reward = Scorer(str(s / "reward"), role="preference", device=ALONE.device)
    cost = Scorer(str(s / "cost"), role="cost", device=ALONE.device)
    for item in scored[:5]:
        (r,), (c,) = ([m.scores([item.group], micro_tokens=500)] for m in (reward, cost))
        expected = 0.5 * (r[0] - r[1]) - 2.0 * (c[0] - c[1])
        assert item.pairs == ((0, 1),) and item.choices[0].margin == pytest.approx(expected.item(), abs=1e-4)
    first = [scored[i].choices[0].margin for i in batch_indices(0, len(scored), 30, 0)]
    loss = sum(math.log(1 + math.exp(margin)) for margin in first) / len(first)
    assert rows_of(tmp_path / "run")[0]["loss"] == pytest.approx(loss, abs=1e-4)
    limit = read_json(tmp_path / "run" / "evaluation.json")["limits"]["harm"]
    costs = [row["scores"]["cost/harm"] for row in read_lines(tmp_path / "run" / "samples.jsonl")]
    assert limit["mean"] == pytest.approx(sum(costs) / 6) and limit["n"] == 6 and limit["verdict"] == "met"
    assert limit["unsafe"] == sum(c > 0 for c in costs) / 6


def test_the_report_shows_a_dpo_run(trained, drawn, tmp_path):
    from accord.cli import main

    assert main(["report", str(trained), "--out", str(tmp_path / "page.html")]) == 0
    html = (tmp_path / "page.html").read_text()
    assert "Change of the log-probability of held-out replies" in html and "better replies" in html
    assert "implicit" in html, "accuracy and calibration stand with those of preference models"
