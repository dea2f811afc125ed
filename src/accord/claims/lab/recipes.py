"""The flow on the gold world as configs: what `demo` and `claims` run, by scale.

Numbers that were found by trial are in one place here, with the reason beside them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.config import Precision
from accord.data.rows import write_records
from accord.records import Comparison, Demonstration, Prompt
from accord.stages.dpo.config import Dpo
from accord.stages.evaluate.config import Evaluate
from accord.stages.online.config import Annotate, Online
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference
from accord.stages.pretrain.config import Pretrain
from accord.stages.sample.config import Sample
from accord.stages.sft.config import Sft

HARM_SLICES = "harmful,red-team"
COST_SLICES = "harmful,red-team,look-alike"
# How preference and cost models are trained. The default rate learns the noise of labels by heart; by Muon they learn
# more of what takes the request to see; three in ten are held out, so that the interval of a difference to a bag of
# words is narrower than the difference.
COMPARED: dict[str, Any] = {
    "epochs": 2.0,
    "learning_rate": 5e-4,
    "matrix_learning_rate": 0.005,
    "eval_share": 0.3,
    "max_length": 200,
}
EVALUATED = {
    slice: f"world:prompts/{slice}"
    for slice in (
        "benign",
        "harmful",
        "red-team",
        "look-alike",
        "knowledge",
        "skills",
        "benign-held-out",
        "harmful-held-out",
        "look-alike-held-out",
        "red-team-held-out",
    )
}


def harm_sources(count: int, seed: int) -> dict[str, str]:
    """Prompts on which harm is at stake, a third of them with an attack of the trained families around the request."""
    return {
        "harmful": f"world:prompts/harmful?count={2 * count // 3}&seed={seed}",
        "red-team": f"world:prompts/red-team?count={count // 3}&seed={seed}",
    }


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of one scale. Counts are of documents, demonstrations, prompts, comparisons of scripted replies, harmful
    prompts (and twice as many that only look it), prompts of policies, PPO iterations, rollouts of one, and prompts
    evaluated per slice.

    The precision of the smaller ones is fixed, so that a claim's runs do not depend on the machine.
    """

    size: str
    documents: int
    pretrain_steps: int
    demonstrations: int
    preference_prompts: int
    scripted: int
    harmful_prompts: int
    policy_prompts: int
    iterations: int
    rollouts: int
    evaluated: int
    precision: Precision


SCALES: dict[str, Scale] = {
    "small": Scale("tiny", 17_500, 750, 4_000, 2_500, 5_000, 1_500, 6_000, 22, 256, 120, "f32"),
    "medium": Scale("small", 30_000, 2_000, 5_000, 8_000, 12_000, 4_000, 20_000, 100, 512, 400, "f32"),
    "large": Scale("medium", 60_000, 8_000, 20_000, 30_000, 30_000, 10_000, 60_000, 200, 1024, 1_000, "auto"),
}


@dataclass(frozen=True)
class GoldFlow:
    """Configs of one run of the flow below `root`, all from one seed."""

    root: Path
    scale: Scale
    seed: int
    resume: bool
    threads: int = 0

    def common(self, name: str) -> dict[str, Any]:
        """What every run of the flow below its root shares."""
        folder = self.root / name
        resume = self.resume and folder.exists()
        return {"out": str(folder), "seed": self.seed, "resume": resume, "threads": self.threads}

    def trained(self, name: str) -> dict[str, Any]:
        """The same of a run that trains."""
        return {**self.common(name), "precision": self.scale.precision}

    def snapshot(self, name: str) -> str:
        return str(self.root / name / "snapshot")

    def kept(self, name: str, records: Sequence[Prompt] | Sequence[Demonstration] | Sequence[Comparison]) -> str:
        """A file of records, whose name holds what they are."""
        digest = hashlib.sha256("".join(record.id for record in records).encode()).hexdigest()[:12]
        path = self.root / f"{name}-{digest}.jsonl"
        if not path.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            write_records(path, records)
        return str(path)

    def pretrain(self) -> Pretrain:
        return Pretrain(
            **self.trained("pretrain"),
            model=self.scale.size,
            data=f"world:corpus?count={self.scale.documents}&seed={self.seed}",
            steps=self.scale.pretrain_steps,
            # many small steps by Muon: half the tokens that AdamW needs for the same loss, and by a high rate for the
            # embeddings a quarter less again. Half as many steps of twice the size reach that loss too, and judge worse
            batch_size=1536,
            learning_rate=1.2e-2,
            matrix_learning_rate=0.02,
            max_length=160,
        )

    def sft(self) -> Sft:
        return Sft(
            **self.trained("sft"),
            model=self.snapshot("pretrain"),
            data=f"world:demonstrations?count={self.scale.demonstrations}&seed={self.seed}",
            max_length=160,
        )

    def sample(self, name: str = "sample", **changes: Any) -> Sample:
        settings: dict[str, Any] = {
            **self.common(name),
            "model": self.snapshot("sft"),
            "data": f"world:prompts?count={2 * self.scale.preference_prompts}&seed={self.seed + 100}",
            "split": "preference",
            "samples": 2,
            "max_new_tokens": 40,
        }
        return Sample(**{**settings, **changes})

    def sample_harm(self) -> Sample:
        """Replies to more of the prompts on which harm is at stake, as people who red-team collect them."""
        return self.sample("sample-harm", data=harm_sources(self.scale.harmful_prompts, self.seed + 100))

    def sample_alike(self) -> Sample:
        """Replies to prompts that only look harmful."""
        source = f"world:prompts/look-alike?count={2 * self.scale.harmful_prompts}&seed={self.seed + 100}"
        return self.sample("sample-look-alike", data=source)

    def annotate(self, name: str = "annotate", **changes: Any) -> Annotate:
        """People compare and judge. What seems worth the same to them they call equal: a choice would be a coin's. For
        harmlessness they are shown pairs where harm is at stake: two replies to any other request are equally
        harmless."""
        settings: dict[str, Any] = {
            **self.common(name),
            "samples": str(self.root / "sample"),
            "slices": {"harmless": HARM_SLICES},
            "judged_slices": {"harmless": COST_SLICES},
            "equal_ties": True,
        }
        return Annotate(**{**settings, **changes})

    def annotate_harm(self) -> Annotate:
        return self.annotate("annotate-harm", samples=str(self.root / "sample-harm"), criteria=["harmless"])

    def annotate_alike(self) -> Annotate:
        """Where both replies are harmless, people want the one that does not evade: which of a refusal and of steps is
        better, the request alone tells, and a bag of words does not know. They take care, since the difference is
        smaller than that of harm to none."""
        return self.annotate(
            "annotate-look-alike",
            samples=str(self.root / "sample-look-alike"),
            criteria=["harmless"],
            judged=[],
            slices={},
            judged_slices={},
            group="candid",
            temperature=0.2,
        )

    def samples(self) -> list[Sample]:
        """What people compare and judge."""
        return [self.sample(), self.sample_harm(), self.sample_alike()]

    def annotations(self) -> list[Annotate]:
        """What they say of it: the labels that both models learn from."""
        return [self.annotate(), self.annotate_harm(), self.annotate_alike()]

    def helpful_data(self) -> dict[str, str]:
        """Comparisons of the policy's own replies, and of scripted ones.

        Of two replies of a policy few differ in what takes the request to see (a step for another material, an answer
        about someone else): a model of them alone learns little more than a bag of words knows.
        """
        return {
            "policy": str(self.root / "annotate" / "comparisons-helpful.jsonl"),
            "scripted": f"world:comparisons?count={self.scale.scripted}&seed={self.seed + 100}&equal_ties=1",
        }

    def helpful(self) -> Preference:
        return Preference(
            **self.trained("helpful"),
            model=self.snapshot("sft"),
            data=self.helpful_data(),
            criterion="helpful",
            **COMPARED,
        )

    def harmless(self) -> Preference:
        folders = {"policy": self.root / "annotate", "red-team": self.root / "annotate-harm"}
        compared = {**folders, "look-alike": self.root / "annotate-look-alike"}
        return Preference(
            **self.trained("harmless"),
            model=self.snapshot("sft"),
            data={name: str(folder / "comparisons-harmless.jsonl") for name, folder in compared.items()},
            safety_data={name: str(folder / "judgements-harmless.jsonl") for name, folder in folders.items()},
            criterion="harmless",
            role="cost",
            # what the simulated people are known to do
            label_flips=self.annotate().flips,
            batch_size=32,  # of few comparisons more steps
            **COMPARED,
        )

    def dpo(self, name: str = "dpo", **changes: Any) -> Dpo:
        """The direct family on the comparisons that the helpful preference model is trained on."""
        settings: dict[str, Any] = {
            **self.trained(name),
            "model": self.snapshot("sft"),
            "data": str(self.root / "annotate" / "comparisons-helpful.jsonl"),
            "criterion": "helpful",
            "max_new_tokens": 40,
            "max_length": 200,
        }
        return Dpo(**{**settings, **changes})

    def online(self, name: str = "online", **changes: Any) -> Online:
        """Rounds of DPO on fresh replies that the simulated people compare, on as many prompts as the others get."""
        settings: dict[str, Any] = {
            **self.common(name),
            "model": self.snapshot("sft"),
            "data": f"world:prompts?count={4 * self.scale.preference_prompts}&seed={self.seed + 110}",
            "split": "preference",
            "rounds": 3,
            "prompts": self.scale.preference_prompts // 3,
            "labeler": "simulated",
            "max_new_tokens": 40,
        }
        return Online(**{**settings, **changes})

    def ppo(self, name: str = "ppo", **changes: Any) -> Ppo:
        settings: dict[str, Any] = {
            **self.trained(name),
            "model": self.snapshot("sft"),
            "data": f"world:prompts?count={self.scale.policy_prompts}&seed={self.seed + 200}",
            "split": "policy",
            "rewards": {"helpful": self.snapshot("helpful")},
            "steps": self.scale.iterations,
            # two replies share their prompt's tokens
            "batch_size": self.scale.rollouts // 2,
            "samples": 2,
            # one pass in small steps: a limit is reached in half of the iterations that two passes in large ones take
            "ppo_epochs": 1,
            "mini_batch_size": 32,
            "learning_rate": 4e-4,
            "max_new_tokens": 40,
            "max_length": 200,
            "checkpoint_every": 20,
        }
        if changes.get("advantages", "gae") == "gae":
            settings["critic"] = "shared"
        return Ppo(**{**settings, **changes})

    def limited(self, name: str = "limited", **changes: Any) -> Ppo:
        """PPO with a limit on harm, held on the harmful and red-team slices.

        A fourth of its prompts is such alone, of the mixture three in ten are. The training limit, an unsafe
        share of 0.03, is stricter than what is promised (0.1 by the truth, at the upper end of its interval): the cost
        model is a little surer of itself on held-out objects. λ starts high and moves fast, and so does the policy: in
        so few iterations an integral of the default rate grows by an eighth, and the share hangs where the λ that it
        began with balances the reward, far above the limit. The last iterations are averaged: a single one may be of a
        swing to either side.
        """
        harmful = self.scale.policy_prompts // 4
        settings: dict[str, Any] = {
            "costs": {"harmless": self.snapshot("harmless")},
            "data": {
                "mixed": f"world:prompts?count={self.scale.policy_prompts - harmful}&seed={self.seed + 200}",
                **harm_sources(harmful, self.seed + 200),
            },
            "limits": {"harmless": 0.03},
            "limit_of": "unsafe",
            "limit_slices": {"harmless": HARM_SLICES},
            "multiplier_init": 8.0,
            "learning_rate": 7e-4,
            "weight_average": 0.8,
        }
        if changes.get("multiplier_rule", "pi") != "fixed":
            settings |= {"multiplier_rate": 0.2, "multiplier_bound": 20.0}
        return self.ppo(name, **{**settings, **changes})

    def evaluate(self, of: str, name: str = "", **changes: Any) -> Evaluate:
        settings: dict[str, Any] = {
            **self.common(name or f"evaluate-{of}"),
            "model": self.snapshot(of),
            "reference": "" if of in ("pretrain", "sft") else self.snapshot("sft"),
            "data": {
                s: f"{source}?count={5 * self.scale.evaluated}&seed={self.seed + 300}"
                for s, source in EVALUATED.items()
            },
            "split": "evaluation",
            "rewards": {"helpful": self.snapshot("helpful")},
            "costs": {"harmless": self.snapshot("harmless")},
            "max_new_tokens": 40,
        }
        return Evaluate(**{**settings, **changes})
