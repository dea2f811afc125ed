"""A number that decides something and stands on a page is the one in the code."""

import inspect
import re
from pathlib import Path

import pytest

from accord.config import Training
from accord.engine.forward import linear_logprobs
from accord.engine.remote import fleet
from accord.models import text_scorers
from accord.objectives.direct import LOSSES
from accord.stages.ppo import rollouts
from accord.stages.pretrain import run as pretrain
from accord.stages.pretrain.config import Pretrain
from accord.stages.sft import run as sft
from accord.stages.sft.config import Sft
from accord.training import compilation as compiling
from accord.training import footprint, memory, precision

DOCS = Path(__file__).resolve().parents[2] / "docs"
WORDS = {2: "twice", 3: "three times", 0.25: "a quarter"}


def short(number):
    return f"{number:.0e}".replace("e-0", "e-")


def percent(share):
    return f"{share:.0%}".replace("%", " %")


gap, tile = rollouts.GAP, linear_logprobs.TILE["cpu"]
SAID = [
    ("policy.md", f"0 is {short(gap['f32'])} in f32, {short(gap['bf16'])} in bf16"),
    ("engine.md", f"nats per token ({short(gap['f32'])} in f32, {short(gap['bf16'])} in bf16"),
    ("engine.md", f"every iteration on every {rollouts.MEASURED}th prompt"),
    ("metrics.md", f"over the replies to every {rollouts.MEASURED}th prompt"),
    ("flow.md", f"`sft` holds out {percent(sft.HELD_OUT)} to measure loss"),
    ("flow.md", f"`pretrain` holds out {percent(pretrain.HELD_OUT)} of the documents"),
    ("flow.md", f"`--checkpoint_minutes` ({Training.model_fields['checkpoint_minutes'].default:g})"),
    ("flow.md", f"`--checkpoint_every` steps ({Training.model_fields['checkpoint_every'].default})"),
    ("engine.md", f"is at least {WORDS[precision.PAYS]} as fast"),
    ("engine.md", f"the plan takes {memory.PEAK:g}"),
    ("engine.md", f"It uses {memory.SHARE:g} of the memory that is free"),
    ("engine.md", f"at most {footprint.MOST['cpu']} tokens on a CPU, {footprint.MOST['cuda']} on a GPU"),
    ("engine.md", f"more than {WORDS[memory.REHEARSED]} of the free memory"),
    ("engine.md", f"if {percent(compiling.HOPED)} of the time left"),
    ("engine.md", f"more than {compiling.PAYS * compiling.COMPILING:g} seconds"),
    ("engine.md", f"if they save {WORDS[compiling.PAYS]} what compiling took"),
    ("engine.md", f"a tile of 2^{tile.bit_length() - 1} numbers"),
    ("engine.md", f"at most 2^{linear_logprobs.KEPT.bit_length() - 1} numbers"),
    ("policy.md", f"asked about every {text_scorers.AT_ONCE} replies"),
    ("policy.md", f"fails {fleet.TRIES} times at servers that are well"),
    ("policy.md", f"{text_scorers.IN_FLIGHT} requests to each are in flight"),
]


# numbered: a name with the number in it would be another test once the number is wrong
@pytest.mark.parametrize(("page", "sentence"), SAID, ids=[f"{page}-{i}" for i, (page, _) in enumerate(SAID)])
def test_a_threshold_on_a_page_is_that_of_the_code(page, sentence):
    assert sentence in re.sub(r"\s+", " ", (DOCS / page).read_text(encoding="utf-8"))


def test_what_help_and_messages_say_of_held_out_shares_is_what_is_held_out():
    assert percent(sft.HELD_OUT) in Sft.model_fields["eval_data"].description
    assert percent(pretrain.HELD_OUT) in Pretrain.model_fields["eval_data"].description


def test_each_direct_loss_stands_with_the_reduction_and_the_beta_of_its_function():
    page, found = (DOCS / "direct.md").read_text(encoding="utf-8"), {}
    for name, loss in LOSSES.items():
        defaults = {p.name: p.default for p in inspect.signature(loss).parameters.values()}
        beta = f", {defaults['beta']:g}" if "beta" in defaults else ""
        found[name] = re.search(rf"^\| `direct\w*\.{name}` \|.*\| {defaults['reduction']}{beta} \|", page, re.MULTILINE)
    assert all(found.values()), [name for name, row in found.items() if row is None]
