"""One thread, tiny models and files shared by every room's tests."""

import gc
import json
import os
import random
import shutil
import sys
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

# every process that a test begins would else compile the whole package anew
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

TEXT = "the cat dog runs sees a red blue small big stone river bakes bread with salt and why how me help please"
WORDS = TEXT.split()


def pytest_collection_finish():
    """What every test finds imported and collected is no garbage: it is not looked through again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def one_thread():
    """Two cores are shared by many; and sums in one order are bit-exact. A stage that is not told takes every core."""
    import torch

    torch.set_num_threads(1)


def sentence(generator, low=2, high=8):
    return " ".join(generator.choice(WORDS) for _ in range(generator.randint(low, high)))


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level tokenizer of about 300 tokens with the package's control tokens and chat template."""
    from accord.data.chat import train_tokenizer

    generator = random.Random(0)
    return train_tokenizer([sentence(generator) for _ in range(200)], 300)


@pytest.fixture(scope="session")
def renderer(tokenizer):
    from accord.data.chat import Renderer

    return Renderer(tokenizer)


@pytest.fixture(scope="session")
def nano():
    """A small size of the ladder, made smaller still: width 16, 2 layers."""
    from accord.models import policy

    patch = pytest.MonkeyPatch()
    patch.setitem(policy.SIZES, "nano", (16, 2, 2, 32))
    yield "nano"
    patch.undo()


def teach(model, renderer, seed):
    """A second of training on short replies: words instead of bytes, and some replies end early."""
    import torch

    from accord.engine.forward.causal import token_logprobs
    from accord.engine.packing import pack, reply_group
    from accord.records import Turn

    generator = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        groups = [
            reply_group(
                renderer.prompt_ids((Turn("user", sentence(generator, 3, 6)),)),
                renderer.reply_ids(sentence(generator, 1, 6) if seed else "the cat " + sentence(generator, 1, 6)),
            )
            for _ in range(24)
        ]
        loss = -token_logprobs(model, pack(groups)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory, tokenizer, nano):
    """Paths of a tiny policy, preference model and cost model, and of a second policy."""
    from accord.data.chat import Renderer
    from accord.models.policy import new_policy
    from accord.models.saving import add_to_description, save_model
    from accord.models.scalar import new_scalar

    root = tmp_path_factory.mktemp("snapshots")
    plain = {"kind": "none", "shift": 0.0, "scale": 1.0}
    for name, seed in (("policy", 0), ("other", 7)):
        model = new_policy(nano, tokenizer, max_length=64, seed=seed)
        teach(model, Renderer(tokenizer), seed)
        save_model(model, tokenizer, root / name, {"role": "policy", "criterion": "", "normalizer": plain}, "")
    for name, role, criterion, seed in (
        ("reward", "preference", "helpful", 1),
        ("cost", "cost", "harmless", 2),
        ("cost2", "cost", "honest", 3),
    ):
        scorer = new_scalar(str(root / "policy"), criterion, seed)
        described = {"role": role, "criterion": criterion, "normalizer": plain}
        save_model(scorer, tokenizer, root / name, described, "")
    # the same costs, squashed for the advantage, of a model that says what limits need to know
    shutil.copytree(root / "cost", root / "calibrated")
    fit = {"temperature": 0.5, "relative_error": 0.4, "n": 60, "flips": 0.0, "ece": 0.02, "ece_before": 0.1}
    described = {"role": "cost", "criterion": "harmless", "normalizer": {**plain, "kind": "sign-probability"}}
    described |= {"deviation": 0.25, "calibration": fit}
    add_to_description(root / "calibrated", described)
    return root


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Small data files of every shape that a stage reads."""
    root = tmp_path_factory.mktemp("files")
    generator = random.Random(1)

    def write(name, rows):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    prompts = list(dict.fromkeys(sentence(generator, 3, 6) for _ in range(130)))[:116]
    write("prompts.jsonl", [{"prompt": p} for p in prompts[80:104]])
    write("harmful.jsonl", [{"prompt": p} for p in prompts[104:]])
    write("documents.jsonl", [{"text": sentence(generator, 6, 14)} for _ in range(150)])
    write("demonstrations.jsonl", [{"prompt": p, "completion": sentence(generator)} for p in prompts[:80]])
    write(
        "comparisons.jsonl",
        [
            {"prompt": p, "chosen": "the cat " + sentence(generator), "rejected": sentence(generator)}
            for p in prompts[:80]
        ],
    )
    write(
        "judgements.jsonl",
        [{"prompt": p, "completion": sentence(generator), "is_safe": bool(i % 2)} for i, p in enumerate(prompts[:40])],
    )
    other = random.Random(2)
    taken = set(prompts)
    fresh = [p for p in dict.fromkeys(sentence(other, 4, 7) for _ in range(80)) if p not in taken]
    write("held-documents.jsonl", [{"text": sentence(other, 6, 14)} for _ in range(40)])
    write("held-harmful.jsonl", [{"prompt": p} for p in fresh[:6]])
    write("fresh.jsonl", [{"prompt": p, "chosen": sentence(other), "rejected": sentence(other)} for p in fresh[6:]])
    return root


@pytest.fixture
def generator():
    return random.Random(5)


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Commands:
    """Command lines on tiny models and files, and what a run of one leaves."""

    def __init__(self, snapshots, files):
        self.snapshots, self.files = snapshots, files

    def line(self, name, out, **changes):
        s, f = self.snapshots, self.files
        # f32: what tests compare must not hang on whether this machine's bf16 pays
        training = {"threads": 1, "max_length": 64, "learning_rate": 1e-3, "precision": "f32"}
        knobs = {
            "pretrain": {**training, "model": "nano", "data": f / "documents.jsonl", "steps": 6}
            | {"batch_size": 300, "vocab_size": 290, "eval_data": f / "held-documents.jsonl"},
            "sft": {**training, "model": s / "policy", "data": f / "demonstrations.jsonl", "batch_size": 30},
            "preference": {**training, "model": s / "policy", "data": f / "comparisons.jsonl", "batch_size": 30},
            "cost": {**training, "model": s / "policy", "data": f / "comparisons.jsonl", "batch_size": 30}
            | {"role": "cost", "criterion": "harmless", "safety_data": f / "judgements.jsonl"},
            "dpo": {**training, "model": s / "policy", "data": f / "comparisons.jsonl", "batch_size": 30}
            | {"max_new_tokens": 6, "kl_prompts": 4},
            "ppo": {**training, "model": s / "policy", "data": f / "prompts.jsonl", "max_new_tokens": 6}
            | {"rewards.helpful": s / "reward", "steps": 4, "batch_size": 8, "mini_batch_size": 4},
            "sample": {"threads": 1, "model": s / "policy", "data": f / "prompts.jsonl", "max_new_tokens": 6},
            "constitution": {"threads": 1, "model": s / "policy", "data": f / "harmful.jsonl"}
            | {"max_new_tokens": 6, "shots": 1, "revisions": 2},
            "online": {"threads": 1, "model": s / "policy", "data": f / "prompts.jsonl", "max_new_tokens": 6}
            | {
                "labeler": "preference",
                "scorer": s / "reward",
                "rounds": 2,
                "prompts": 10,
                "train.max_length": 64,
                "train.precision": "f32",
                "train.eval_share": 0.3,
            },
            "evaluate": {"threads": 1, "model": s / "policy", "data": f / "prompts.jsonl"}
            | {"max_new_tokens": 6, "rewards.helpful": s / "reward", "costs.harmless": s / "cost", "bootstrap": 20},
        }
        knobs["limited"] = {
            **{k: v for k, v in knobs["ppo"].items() if k != "data"},
            "data.plain": f / "prompts.jsonl",
            "data.harmful": f / "harmful.jsonl",
            "costs.harm": s / "cost",
            "limits.harm": -0.5,
            "limit_slices.harm": "harmful",
        }
        knobs["unsafe"] = {
            **knobs["limited"],
            "costs.harm": s / "calibrated",
            "limits.harm": 0.3,
            "limit_of.harm": "unsafe",
        }
        command = {"cost": "preference", "limited": "ppo", "unsafe": "ppo"}.get(name, name)
        chosen = {**knobs[name], "out": out, **changes}
        return [command, *(part for k, v in chosen.items() if v is not None for part in (f"--{k}", str(v)))]

    def run(self, name, out, **changes):
        from accord.cli import main

        return main(self.line(name, out, **changes))


@pytest.fixture(scope="session")
def commands(snapshots, files):
    """And what they import is no garbage either: `accord preference` looks for some in every run."""
    for name in ("pretrain", "sft", "preference", "dpo", "ppo", "sample", "constitution", "online", "evaluate"):
        import_module(f"accord.stages.{name}.run")
    gc.collect()
    gc.freeze()
    return Commands(snapshots, files)


@pytest.fixture
def stop_after(monkeypatch):
    """`stop_after(step)` asks the next run to stop once it has logged that step, as Ctrl-C would."""
    from accord.run import RunFolder

    plain = RunFolder.log

    def install(step):
        def log(self, row):
            plain(self, row)
            if row["step"] == step:
                self.stop_requested = True

        monkeypatch.setattr(RunFolder, "log", log)

    yield install
    monkeypatch.setattr(RunFolder, "log", plain)


def metrics_of(folder):
    """Rows of metrics.jsonl without the clock."""
    rows = read_rows(Path(folder) / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in ("tokens_per_second", "seconds")} for row in rows]


def weights_of(folder):
    from safetensors.torch import load_file

    out = {}
    for file in sorted((Path(folder) / "snapshot").glob("*.safetensors")):
        out.update({f"{file.name}/{k}": v for k, v in load_file(file).items()})
    return out


def checkpoint_of(folder):
    """The newest checkpoint: its tensors (weights, optimizers), and its numbers without the clock.

    Not torch's random state, which kernels draw from where they are tried before their first use, and nothing else.
    """
    from safetensors.torch import load_file

    found = max((Path(folder) / "checkpoints").glob("step-*"), default=None)
    if found is None:
        return {}, {}
    tensors = {f"{f.name}/{k}": v for f in sorted(found.glob("*.safetensors")) for k, v in load_file(f).items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("random/torch")}
    state = json.loads((found / "state.json").read_text())
    clock = ("tokens_per_second", "seconds")
    return tensors, state | {"last_row": {k: v for k, v in (state.get("last_row") or {}).items() if k not in clock}}


@pytest.fixture(scope="session")
def same_run():
    """Assert that two run folders hold the same numbers and weights, and the same last checkpoint, bit for bit."""
    import torch

    def check(a, b):
        rows, others = metrics_of(a), metrics_of(b)
        assert len(rows) == len(others)
        for row, other in zip(rows, others, strict=True):
            assert row == other
        mine, theirs = weights_of(a), weights_of(b)
        assert mine.keys() == theirs.keys() and mine
        for key in mine:
            assert torch.equal(mine[key], theirs[key]), key
        (saved, state), (other_saved, other_state) = checkpoint_of(a), checkpoint_of(b)
        assert state == other_state and saved.keys() == other_saved.keys()
        for key in saved:
            assert torch.equal(saved[key], other_saved[key]), key

    return check
