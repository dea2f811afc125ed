"""Two processes are one: every training stage in two (gloo on the CPU), with whole replicas and with --shard; the slow
tests start them by torchrun.

One pair of processes does all the runs, one after the other; what one process does is compared with it. Tolerances are
those of f32 sums in another order.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from accord.run import RunFolder
from accord.training import checkpoint
from tests.fixtures.ranks import spawn

# after the runs: what a rank holds of a sharded model and its optimizer; who waits for whom
MORE = """
import torch
from accord.models.loading import load_policy
from accord.training import distributed
from accord.training.optimizer import build_optimizers, clip_gradients
from accord.training.shards import local, shard, whole
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group
world = distributed.start(1, shard=True)
model, other = load_policy(asked["policy"]), load_policy(asked["policy"])
numbers = sum(p.numel() for p in model.parameters())
shard(model, world)
optimizers = build_optimizers(model, weight_decay=0.0, with_muon=True)
token_logprobs(model, pack([reply_group((5, 6), (7, 8))])).sum().backward()
clip_gradients(model.parameters(), 1.0)
for optimizer in optimizers.values():
    optimizer.step()
held = sum(local(p).numel() + local(p.grad).numel() for p in model.parameters())
held += sum(local(v).numel() for o in optimizers.values() for s in o.state.values() for v in s.values() if v.ndim)
kept = sum(2 * p.numel() + sum(v.numel() for o in optimizers.values() for v in o.state.get(p, {}).values() if v.ndim)
           for p in model.parameters())
optimizers["adamw"].zero_grad()
with whole(model) as plain:
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(plain.parameters(), other.parameters()))
    shapes = [tuple(p.shape) for p in plain.parameters()] == [tuple(p.shape) for p in other.parameters()]
folder = Path(asked["folder"])
(folder / f"held-{world.rank}.json").write_text(json.dumps([held, kept, numbers, moved, shapes]))
distributed.PATIENCE = 0.3
world.at("a long rest" if world.rank else "the finish")
if world.rank:
    time.sleep(2)
world.gather(None)
if world.rank == 0:
    try:
        world.gather(None)
    except distributed.RanksApart as error:
        (folder / "apart.txt").write_text(str(error))
"""

ROUNDED = {"lora_rank": 2, "precision": "bf16", "epochs": 1}  # adapters on a base that is held in bf16
FEW = {"epochs": 0.4}
SLOW = {"preference": {}, "pretrain": {"steps": 2, "matrix_learning_rate": 0.01}, "sft": {"lora_rank": 2}}
SLOW |= {"cost": {"folds": 2, "epochs": 1, "max_rows": 30}}
SLOW |= {"dpo": {"refresh_every": 2, "refresh_mix": 0.5}}
SLOW |= {"ppo": {"lora_rank": 2, "steps": 2, "kl_in": "loss", "kl_estimator": "exact-forward"}}
QUICK = {
    "pretrain": {"steps": 2},
    "cost": {"epochs": 1, "max_rows": 30},
    "dpo": {"loss": "kto", "max_rows": 40},
    "limited": {"steps": 2, "samples": 2, "weight_average": 0.5},
}
SHARDED = {"sft": {"epochs": 1}, "limited": QUICK["limited"]}


def stopping(commands, step, name, out, **changes):
    """A run in this process that is asked to stop after a step."""
    plain = RunFolder.log

    def log(self, row):
        plain(self, row)
        if row["step"] == step:
            self.stop_requested = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "log", log)
        assert commands.run(name, out, micro_tokens=100, **changes) == 1


MOVED = {"epochs": 2, "eval_every": 2}
STOPPED = {"sft": 2}  # of the sharded ones (test_sharded_resume has all): after which step a second run is stopped

# a run in which every role is adapters on one base; what a rank holds of frozen weights, and as how many parameters
BASE = """
from accord.stages.ppo import run as ppo
from accord.training.shards import local
kept = []
plain_iterate = ppo.iterate
def iterate(config, run, world, prompts, actors, *rest):
    kept.append(actors)
    return plain_iterate(config, run, world, prompts, actors, *rest)
ppo.iterate = iterate
if main(asked["based"]) != 0:
    sys.exit("the run on one base failed")
def frozen(*modules):
    parts = [local(p) for m in modules for p in m.parameters() if not p.requires_grad]
    return len(parts), sum({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parts}.values())
actors = kept[0]
roles = [model for scorer in actors.scorers.values() for model in scorer.models]
one, every = frozen(actors.policy), frozen(actors.policy, actors.average, actors.critics, *roles)
(Path(asked["folder"]) / f"base-{os.environ['RANK']}.json").write_text(json.dumps([one, every]))
"""
BASED = {"lora_rank": 2, "steps": 1, "learning_rate": 1e-2, "weight_average": 0.5}


def labeled_by(snapshots):
    """A labeler as the reward of PPO."""
    asked = {"rewards.kind": f"labeler:{snapshots / 'policy'}", "labeling.question": "yes-no"}
    return {"rewards.helpful": None, "steps": 2, "max_rows": 11, **asked}


@pytest.fixture(scope="module")
def based(commands, tmp_path_factory):
    """PPO whose reward and cost are adapters on the policy's snapshot, as it runs in one process."""
    root = tmp_path_factory.mktemp("based")
    for name in ("preference", "cost"):
        assert commands.run(name, root / name, lora_rank=2, learning_rate=1e-2, epochs=1) == 0
    changes = {"rewards.helpful": root / "preference/snapshot", "costs.harm": root / "cost/snapshot", **BASED}
    assert commands.run("limited", root / "one", micro_tokens=100, **changes) == 0
    return root / "one", changes


@pytest.fixture(scope="module")
def pair(commands, snapshots, based, tmp_path_factory):
    """The folder with every run of two processes, and what they said."""
    root = tmp_path_factory.mktemp("ranks")
    line = lambda name, out, **changes: commands.line(name, root / out, micro_tokens=100, **changes)  # noqa: E731
    lines = [(-1, 0, line(name, f"two-{name}", **changes)) for name, changes in QUICK.items()]
    lines += [(-1, 0, line(n, f"shard-{n}", shard="true", **changes)) for n, changes in SHARDED.items()]
    for name, step in STOPPED.items():
        again = {"shard": "true", **SHARDED[name]}
        lines.append((step, 1, line(name, f"again-{name}", **again)))
        lines.append((-1, 0, line(name, f"again-{name}", resume="true", **again)))
    sampled = {"samples": 3, "rewards.helpful": snapshots / "reward", "select": "best"}
    lines.append((-1, 0, commands.line("sample", root / "two-sample", **sampled)))
    assert commands.run("sample", root / "one-sample", **sampled) == 0
    stopping(commands, 2, "sft", root / "moved", **MOVED)
    lines.append((4, 1, line("sft", "moved", shard="true", resume="true", **MOVED)))
    lines.append((-1, 0, line("ppo", "two-labeled", **labeled_by(snapshots))))
    lines.append((-1, 0, line("sft", "shard-rounded", shard="true", **ROUNDED | FEW)))
    on_base = line("limited", "shard-based", shard="true", **based[1])
    said = spawn(root, lines, BASE + MORE, policy=str(snapshots / "policy"), based=on_base)
    return root, said


def rows_of(folder):
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


def leaves(value, path=""):
    """Every value in JSON by its path."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, f"{path}/{key}")
    else:
        yield path, value


def alike(one, two):
    """The numbers, weights and evaluation of two runs agree to 1e-5."""
    rows, others = rows_of(one), rows_of(two)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for a, b in zip(rows, others, strict=True):
        assert a.keys() == b.keys()
        for key in set(a) - {"tokens_per_second", "seconds", "sqrt_kl"}:  # the root makes 4e-4 of a rounding of 2e-7
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-5), (one.name, a["step"], key)
    mine, theirs = (load_file(next((run / "snapshot").glob("*model.safetensors"))) for run in (one, two))
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert torch.allclose(mine[key], theirs[key], rtol=0, atol=1e-5), (one.name, key)
    assert {p.name for p in (one / "snapshot").iterdir()} == {p.name for p in (two / "snapshot").iterdir()}
    name = "adapter_config.json" if (one / "snapshot/adapter_config.json").exists() else "config.json"
    described, other = (dict(leaves(json.loads((run / "snapshot" / name).read_text()))) for run in (one, two))
    assert described.keys() == other.keys()
    for key, value in described.items():
        assert other[key] == (pytest.approx(value, rel=1e-5, abs=1e-5) if isinstance(value, float) else value), key


@pytest.fixture(scope="module")
def single(commands, tmp_path_factory):
    """Runs of one process, made once."""
    root, done = tmp_path_factory.mktemp("single"), {}

    def get(name, changes):
        key = json.dumps([name, changes], sort_keys=True)
        if key not in done:
            done[key] = root / f"{name}-{len(done)}"
            assert commands.run(name, done[key], micro_tokens=100, **changes) == 0
        return done[key]

    return get


@pytest.mark.parametrize("name", QUICK)
def test_c15_c16_two_ranks_give_what_one_process_gives(name, pair, single):
    alike(single(name, QUICK[name]), pair[0] / f"two-{name}")


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_weights_give_what_one_process_gives(name, pair, single):
    alike(single(name, SHARDED[name]), pair[0] / f"shard-{name}")


@pytest.mark.parametrize("name", STOPPED)
def test_a_sharded_run_that_was_stopped_ends_with_the_same_bits(name, pair, same_run):
    """Weights, optimizer, metrics; ranks that go on find their own parts."""
    same_run(pair[0] / f"again-{name}", pair[0] / f"shard-{name}")


def rounded(one, two, snapshots):
    """A snapshot is in f32, near that of one process, and what no adapter stands on is as it was."""
    runs = (one, two)
    folders = [*(run / "snapshot" for run in runs), snapshots / "policy"]
    one, two, start = (load_file(folder / "model.safetensors") for folder in folders)
    for key in one:
        assert two[key].dtype == torch.float32 and torch.allclose(one[key], two[key], rtol=0, atol=1e-2), key
    untouched = "model.embed_tokens.weight"
    assert torch.equal(two[untouched], start[untouched])


def test_a_sharded_base_in_bf16_gives_a_snapshot_in_f32(pair, single, snapshots):
    rounded(single("sft", ROUNDED | FEW), pair[0] / "shard-rounded", snapshots)


@pytest.mark.slow
def test_a_sharded_scorer_s_base_in_bf16_gives_a_snapshot_in_f32(commands, single, snapshots, tmp_path):
    out = tmp_path / "two"
    line = commands.line("preference", out, micro_tokens=100, shard="true", **ROUNDED)
    spawn(tmp_path, [(-1, 0, line)])
    rounded(single("preference", ROUNDED), out, snapshots)


def test_roles_on_one_base_are_what_one_process_has(pair, based):
    alike(based[0], pair[0] / "shard-based")


def test_a_sharded_base_is_held_once_for_all_roles(pair):
    """Policy, its average, two critics, reward and cost: six of them, and the scorers' frozen heads and adapters."""
    for rank in (0, 1):
        (one, part), (every, parts) = json.loads((pair[0] / f"base-{rank}.json").read_text())
        assert every > 5.5 * one and parts < 1.3 * part


def test_of_two_ranks_the_first_asks_a_labeler_and_both_learn_what_it_said(pair, single, snapshots):
    one, two = single("ppo", labeled_by(snapshots)), pair[0] / "two-labeled"
    alike(one, two)
    asked = [[json.loads(row) for row in (run / "journal.jsonl").read_text().splitlines()] for run in (one, two)]
    ids = [[row["id"] for row in rows] for rows in asked]
    assert sorted(ids[0]) == sorted(ids[1]) and len(set(ids[1])) == len(ids[1]) > 8


def test_two_ranks_draw_the_replies_that_one_draws(pair):
    for name in ("samples.jsonl", "demonstrations.jsonl"):
        one, two = ((pair[0] / f"{ranks}-sample" / name).read_text().splitlines() for ranks in ("one", "two"))
        assert len(one) == len(two) > 20
        for a, b in zip(map(json.loads, one), map(json.loads, two), strict=True):
            assert a.keys() == b.keys()
            for key, value in a.items():
                same = pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
                assert b[key] == same, key


def test_a_rank_holds_its_share_of_weights_gradients_and_moments(pair):
    for rank in (0, 1):
        held, kept, numbers, moved, shapes = json.loads((pair[0] / f"held-{rank}.json").read_text())
        assert 0.45 * kept < held < 0.55 * kept and kept > 2 * numbers
        assert moved == 0.0 and shapes  # rates are 0 until they are set


def test_a_rank_that_waits_says_for_whom(pair):
    assert "note: rank 0 waits at the finish for what every rank has; rank 1 was last at a long rest" in pair[1]
    apart = (pair[0] / "apart.txt").read_text()
    assert apart.startswith("rank 0 waits at the finish for what every rank has; rank 1 was last at a long rest (")


def test_one_process_then_two_sharded_ones_then_one_again(pair, commands, single, tmp_path):
    """And of the sharded checkpoint in between, nothing is read that was not written."""
    import shutil

    whole = single("sft", MOVED)
    saved = checkpoint.latest(pair[0] / "moved" / "checkpoints")
    assert {f.name for f in saved.iterdir()} == {
        "manifest.json",
        "state.json",
        *(f"shard-{rank:05d}-model-00001-of-00001.safetensors" for rank in (1, 2)),
    }
    run = tmp_path / "run"
    shutil.copytree(pair[0] / "moved", run)
    assert commands.run("sft", run, micro_tokens=100, resume="true", **MOVED) == 0
    alike(whole, run)


def harmed(how, folder):
    first = sorted(folder.glob("shard-*"))[0]
    content = first.read_bytes()
    if how == "flip":
        first.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif how == "truncate":
        first.write_bytes(content[: len(content) // 2])
    elif how == "missing":
        first.unlink()
    else:
        first = folder / (".metadata" if how == "pickle" else "shard-00003-model-00001-of-00001.safetensors")
        # what pickle.loads would run
        first.write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR." if how == "pickle" else content)
    return first.name


@pytest.mark.parametrize("how", ["flip", "truncate", "missing", "pickle", "more"])
def test_a_sharded_checkpoint_that_is_not_what_was_written_is_refused_by_name(
    how, pair, commands, tmp_path, capsys, monkeypatch
):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(pair[0] / "moved", run)
    monkeypatch.chdir(tmp_path)
    name = harmed(how, checkpoint.latest(run / "checkpoints"))
    before = {f: f.stat().st_mtime_ns for f in run.rglob("*.safetensors")}
    assert commands.run("sft", run, micro_tokens=100, resume="true", **MOVED) == 2
    assert name in capsys.readouterr().err
    assert {f: f.stat().st_mtime_ns for f in run.rglob("*.safetensors")} == before
    assert not (tmp_path / "harmed").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_stage_on_two_and_on_four_ranks(ranks, commands, single, tmp_path):
    """Sharded and not; adapters, Muon, a reference that follows, KL over the whole vocabulary."""
    cases = [*QUICK.items(), ("sft", SHARDED["sft"]), *SLOW.items()]
    lines = []
    for number, (name, changes) in enumerate(cases):
        for kind, more in (("two", {}), ("shard", {"shard": "true"})):
            out = tmp_path / f"{kind}-{number}"
            lines.append((-1, 0, commands.line(name, out, micro_tokens=100, **changes, **more)))
    spawn(tmp_path, lines, ranks=ranks, torchrun=True)
    for number, (name, changes) in enumerate(cases):
        for kind in ("two", "shard"):
            alike(single(name, changes), tmp_path / f"{kind}-{number}")
