"""DPO matches PPO at a fraction of the compute: the direct family, PPO and best-of-n on one reward–KL plane."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.policies import difference, level, show
from accord.claims.lab.recipes import EVALUATED, GoldFlow
from accord.claims.sqrt_kl import run_config as weak_kl
from accord.disk import read_json, read_lines
from accord.evaluation.statistics import Interval, nested_interval
from accord.objectives.best_of import best_of_kl_bound
from accord.reporting.figures import Line, Panel, curves
from accord.stages.evaluate.config import Evaluate
from accord.stages.online.config import Online

MARGIN = 0.05  # gold points that still count as a match
SHARE = 0.33  # of PPO's seconds that count as a fraction
DRAWN = 16
BEST_OF = (1, 2, 4, 8, 16)

# three passes over the comparisons: seconds, where PPO takes minutes. Found on seeds 0-9, as is β
TRAINED_FOR: dict[str, object] = {"epochs": 3.0}
# method: the settings that make its line on the plane; the first stands for the method
SETTINGS: dict[str, dict[str, dict[str, object]]] = {
    "dpo": {
        "dpo": {**TRAINED_FOR, "beta": 0.3},
        # about the seconds that PPO takes
        "dpo-long": {**TRAINED_FOR, "beta": 0.3, "epochs": 6.0},
        # three times the rate: past the gold peak, the further the smaller β is
        "dpo-fast-0.3": {"beta": 0.3, "learning_rate": 3e-4},
        "dpo-fast-0.03": {"beta": 0.03, "learning_rate": 3e-4},
    },
    "ipo": {"ipo": {**TRAINED_FOR, "loss": "ipo"}},
    "kto": {"kto": {**TRAINED_FOR, "loss": "kto", "beta": 0.3}},
    "simpo": {"simpo": {**TRAINED_FOR, "loss": "simpo"}},
}


def online(flow: GoldFlow) -> Online:
    return flow.online(train={**SETTINGS["dpo"]["dpo"], "max_length": 200})


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold scores, KL, seconds and tokens of every method on the same evaluation prompts."""
    flows = cells.base(seeds)
    settings = {name: changes for lines in SETTINGS.values() for name, changes in lines.items()}
    cells.run(
        [c for flow in flows for c in (flow.ppo(), weak_kl(flow), *(flow.dpo(n, **s) for n, s in settings.items()))]
    )
    cells.run([online(flow) for flow in flows])
    names = ["sft", *settings, "online", "ppo", "ppo-weak-kl"]
    cells.run([flow.evaluate(name) for flow in flows for name in names])
    cells.run([drawn(flow) for flow in flows])

    def against(name: str, other: str, slices: Sequence[str] = TRAINED) -> Interval:
        return nested_interval(difference(flows, name, other, "gold/helpful", slices))

    steps: dict[str, Callable[[GoldFlow], list[str]]] = {
        "sft": lambda flow: [],
        **{name: lambda flow, name=name: ["sample", "annotate", name] for name in settings},  # type: ignore[misc]
        "online": lambda flow: ["online"],
        "ppo": lambda flow: ["sample", "annotate", "helpful", "ppo"],
        "ppo-weak-kl": lambda flow: ["sample", "annotate", "helpful", "ppo-weak-kl"],
    }
    seconds = {n: np.array([sum(seconds_of(f, s) for s in folders(f)) for f in flows]) for n, folders in steps.items()}
    parts = [
        Part("gold helpfulness, DPO − PPO", against("dpo", "ppo"), -MARGIN, "above"),
        Part("seconds from SFT to the policy, DPO / PPO", ratio(seconds["dpo"], seconds["ppo"]), SHARE, "below"),
    ]
    gold = {name: nested_interval(level(flows, name, "gold/helpful", TRAINED)) for name in names}
    kl = {name: nested_interval(level(flows, name, "kl", TRAINED)) for name in names if name != "sft"}
    notes = []
    for name in names:
        distance = f"KL {show(kl[name])}, " if name in kl else ""
        tax = nested_interval(level(flows, name, "gold/correct", ("skills",)), "share")
        score = nested_interval(level(flows, name, "reward/helpful", TRAINED))
        tokens = np.mean([tokens_of(flow, steps[name](flow)) for flow in flows])
        notes.append(
            f"{name}: gold helpfulness {show(gold[name])}, {distance}preference-model score {score.mean:+.2f}, right "
            f"answers on skills {tax.mean:.2f}, {seconds[name].mean():.0f} s, {tokens / 1000:.0f} thousand tokens"
        )
    others = [name for name in names if name not in ("sft", "ppo", "dpo")]
    notes += [f"gold helpfulness, {name} − ppo: {show(against(name, 'ppo'))}" for name in others]
    notes += [f"the same on {slice} prompts, dpo − ppo: {show(against('dpo', 'ppo', (slice,)))}" for slice in TRAINED]
    best = [best_of(read_lines(Path(drawn(flow).out) / "samples.jsonl")) for flow in flows]
    bound = [best_of_kl_bound(n) for n in BEST_OF]
    for i, n in enumerate(BEST_OF[1:], 1):
        found = nested_interval([of_seed[i] for of_seed in best])
        notes.append(
            f"best of {n} by the preference model: gold helpfulness {show(found)}, KL at most {bound[i]:.2f}, "
            f"{n} replies for every one that is shown"
        )
    lines = [
        Line(method, color, [math.sqrt(max(kl[n].mean, 0)) for n in on], [gold[n].mean for n in on], points=True)
        for color, (method, on) in enumerate(
            [(m, in_order(of, kl)) for m, of in SETTINGS.items()]
            + [("online dpo", ["online"]), ("ppo", in_order(("ppo", "ppo-weak-kl"), kl))]
        )
    ]
    heights = [float(np.mean([of_seed[i].mean() for of_seed in best])) for i in range(len(BEST_OF))]
    lines.append(Line("best of n", len(lines), [math.sqrt(b) for b in bound], heights, dashed=True, points=True))
    return Finding(parts, notes, curves([Panel("", "√KL (√nats)", "gold helpfulness", lines)], columns=1, height=3.6))


def drawn(flow: GoldFlow) -> Evaluate:
    """Many replies of SFT to the evaluation prompts, with their scores: best-of-n for every n is computed from them."""
    count = 5 * flow.scale.evaluated
    data = {s: f"{EVALUATED[s]}?count={count}&seed={flow.seed + 300}" for s in TRAINED}
    return flow.evaluate("sft", "evaluate-sft-drawn", samples=DRAWN, data=data, costs={})


def best_of(rows: Sequence[dict]) -> list[np.ndarray]:
    """For each n of BEST_OF, each prompt's expected gold score of the reply that the preference model likes best of n.

    The mean over every subset of n of a prompt's replies: the reply with i lower ones is the best of C(i, n − 1) of
    them.
    """
    by_prompt: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        scored = (row["scores"]["reward/helpful"], row["scores"]["gold/helpful"])
        by_prompt.setdefault(row["prompt_id"], []).append(scored)
    # a prompt that was drawn twice has twice the replies
    tables = [np.array([gold for _, gold in sorted(replies)]) for replies in by_prompt.values()]
    return [np.array([float(chances(n, len(table)) @ table) for table in tables]) for n in BEST_OF]


def chances(n: int, count: int) -> np.ndarray:
    """The chance of each of `count` replies in rising order to be the best of n that are drawn without replacement."""
    return np.array([math.comb(i, n - 1) for i in range(count)]) / math.comb(count, n)


def in_order(names: Sequence[str] | dict, kl: Mapping[str, Interval]) -> list[str]:
    """Settings by their KL, so that the line goes to the right."""
    return sorted(names, key=lambda name: kl[name].mean)


def ratio(above: np.ndarray, below: np.ndarray) -> Interval:
    """Mean over seeds of a quotient."""
    return nested_interval(above / below)


def seconds_of(flow: GoldFlow, name: str) -> float:
    return float(read_json(flow.root / name / "lineage.json")["seconds"])


def tokens_of(flow: GoldFlow, folders: Sequence[str]) -> float:
    """Tokens trained on, one that is read twice counting twice; of PPO the replies alone."""
    total = 0.0
    ppo = flow.ppo()
    for name in folders:
        rows = read_lines(flow.root / name / "metrics.jsonl")
        total += rows[-1].get("num_tokens", 0) if rows else 0
        replies = ppo.batch_size * ppo.samples * ppo.ppo_epochs
        total += sum(row.get("completions/mean_length", 0.0) for row in rows) * replies
    return total


CLAIM = Claim(
    name="dpo",
    claim="DPO, which trains on the comparisons themselves, matches PPO on a preference model made from the same "
    "comparisons, at a fraction of the compute.",
    source="Rafailov et al. 2023 (arXiv:2305.18290); against it Xu et al. 2024 (arXiv:2404.10719), Ivison et al. 2024 "
    "(arXiv:2406.09279)",
    statistic="Paired difference in gold helpfulness of DPO and PPO, one reply each to the same evaluation prompts, "
    "and the quotient of their seconds from SFT on (sampling, labels, preference model, policy; one thread each); "
    "intervals over seeds. IPO, KTO, SimPO, three rounds of online DPO, PPO with a weak KL penalty and "
    "best-of-n from as many comparisons stand beside them on one plane of gold helpfulness over √KL.",
    rule=f"The difference is above −{MARGIN:g} gold points and the quotient below {SHARE:g}, both with their whole "
    "intervals.",
    measure=measure,
)
