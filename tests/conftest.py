"""One thread, tiny models and files shared by every room's tests."""

import json
import os
import random
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

TEXT = "the cat dog runs sees a red blue small big stone river bakes bread with salt and why how me help please"
WORDS = TEXT.split()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two cores are shared by many; and sums in one order are bit-exact."""
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
    """The smallest size of the ladder, made smaller still: width 16, 2 layers."""
    from accord.models import loading

    patch = pytest.MonkeyPatch()
    patch.setitem(loading.SIZES, "nano", (16, 2, 2, 32))
    yield "nano"
    patch.undo()


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory, tokenizer, nano):
    """Paths of a tiny policy, preference model and cost model, and of a second policy."""
    import torch

    from accord.models.loading import new_policy, save_model
    from accord.models.scalar import new_scalar

    root = tmp_path_factory.mktemp("snapshots")
    plain = {"kind": "none", "shift": 0.0, "scale": 1.0}
    for name, seed in (("policy", 0), ("other", 7)):
        model = new_policy(nano, tokenizer, max_length=64, seed=seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2.0)  # far enough from uniform that a test can see a difference
        save_model(model, tokenizer, root / name, {"role": "policy", "criterion": "", "normalizer": plain}, "")
    for name, role, criterion, seed in (
        ("reward", "preference", "helpful", 1),
        ("cost", "cost", "harmless", 2),
        ("cost2", "cost", "honest", 3),
    ):
        scorer = new_scalar(str(root / "policy"), criterion, seed)
        described = {"role": role, "criterion": criterion, "normalizer": plain}
        save_model(scorer, tokenizer, root / name, described, "")
    return root


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Small data files of every shape that a stage reads."""
    root = tmp_path_factory.mktemp("files")
    generator = random.Random(1)

    def write(name, rows):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    prompts = list(dict.fromkeys(sentence(generator, 3, 6) for _ in range(80)))
    write("prompts.jsonl", [{"prompt": p} for p in prompts[:24]])
    write("harmful.jsonl", [{"prompt": p} for p in prompts[24:36]])
    write("documents.jsonl", [{"text": sentence(generator, 6, 14)} for _ in range(150)])
    write("demonstrations.jsonl", [{"prompt": p, "completion": sentence(generator)} for p in prompts])
    write(
        "comparisons.jsonl",
        [{"prompt": p, "chosen": "the cat " + sentence(generator), "rejected": sentence(generator)} for p in prompts],
    )
    write(
        "judgements.jsonl",
        [{"prompt": p, "response": sentence(generator), "is_safe": bool(i % 2)} for i, p in enumerate(prompts[:40])],
    )
    return root


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
