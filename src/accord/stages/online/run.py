"""Online rounds: a policy learns from comparisons of its own fresh replies, and is promoted or refused.

    incumbent ─► sample ─► label ─► models ─► policy ─► evaluate ─► meet ─► judge ─► decide ─► incumbent of the next

On-policy alignment in rounds (Bai et al. 2022, arXiv:2204.05862, section 4.5; Guo et al. 2024, arXiv:2402.04792). Every
round is run folders of those stages below this one's. A step whose end is written in `rounds.json` is not done again.
"""

import shutil
from collections.abc import Callable
from typing import Any

from accord.disk import read_json
from accord.errors import GateClosed
from accord.run import RunFolder
from accord.stages.online.bounds import read_round_gate
from accord.stages.online.config import Online
from accord.stages.online.decide import decide, first_evaluation, measure
from accord.stages.online.judge import have_judged, meet
from accord.stages.online.place import FIRST, Place, share_out
from accord.stages.online.states import FILE, Ledger
from accord.stages.online.steps import label, measured, sample_replies, train_models, train_policy
from accord.stages.shared import open_run

STEPS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "sample": sample_replies,
    "label": label,
    "models": train_models,
    "policy": train_policy,
    "evaluate": measure,
    "meet": meet,
    "judge": have_judged,
    "decide": decide,
}


def run(config: Online) -> RunFolder:
    """Run the rounds; leaves `rounds.json`, `round-N/` with a run folder of each step, and `snapshot/`, the policy that
    was last promoted. GateClosed where none was, WaitsForPeople where answers are missing."""
    parents = {"model": config.model, **({"scorer": config.scorer} if config.scorer else {})}
    parents |= {f"deployed.{k}": where for k, where in enumerate(config.deployed, 1)}
    parents |= {f"cost.{name}": where for name, where in config.costs.items()}
    parents |= {"judge": config.judge_scorer} if config.judge_scorer else {}
    with open_run("online", config, parents) as run:
        if run.finished:
            return _upheld(config, run)
        config = config.model_copy(update={"threads": run.threads})
        gate = read_round_gate(config, first_evaluation(run.path))
        prompts = share_out(config, run, gate)
        ledger = Ledger(run, head(config))
        run.truncate_logs(0)
        incumbent, name, tokens, promoted = config.model, FIRST, 0, 0
        for number in range(1, config.rounds + 1):
            ledger.begin(number, name)
            place = Place(config, run, ledger, gate, prompts, number, incumbent)
            print(f"round {number} of {config.rounds}", flush=True)
            for step in steps_of(config):
                do(place, step)
            row = measured(place)
            if "num_tokens" in row:
                row["num_tokens"] = tokens = tokens + row["num_tokens"]
            taken = not config.gate or ledger.facts(number, "decide")["promoted"]
            run.log({"step": number, **row, "round/promoted": int(taken)})
            if taken:
                incumbent, name, promoted = place.candidate, f"round-{number}", promoted + 1
        if promoted:
            with run.new_snapshot() as snapshot:
                shutil.copytree(incumbent, snapshot, dirs_exist_ok=True)
        run.finish(rounds=config.rounds, promoted=promoted)
        return _upheld(config, run)


def steps_of(config: Online) -> list[str]:
    """The steps of every round, in their order."""
    skipped = set() if config.policy == "ppo" else {"models"}
    skipped |= set() if config.gate else {"evaluate", "meet", "judge", "decide"}
    return [step for step in STEPS if step not in skipped]


def do(place: Place, step: str) -> None:
    """Do a step unless it was done. Raises Interrupted after Ctrl-C, with what was done kept."""
    if not place.ledger.is_done(place.number, step):
        place.ledger.set(place.number, step, "running")
        facts = STEPS[step](place)
        place.ledger.set(place.number, step, "done", **facts)
    if place.stopped or place.run.stop_requested:
        raise place.run.interrupted(place.number - 1, "round")


def head(config: Online) -> dict[str, Any]:
    """What `rounds.json` says of all rounds: who labels, who judges, by which gate, and how the error is divided."""
    told = {"criterion": config.criterion, "labeler": config.labeler, "policy": config.policy, "start": config.start}
    return told | ({"gate": config.gate, "judge": config.judge, "spending": config.spending} if config.gate else {})


def _upheld(config: Online, run: RunFolder) -> RunFolder:
    """The run; GateClosed where no round was promoted."""
    rounds = read_json(run.path / FILE)["rounds"]
    if config.gate and not any(one["decision"]["promoted"] for one in rounds):
        raise GateClosed(f"no round of {len(rounds)} was promoted by {config.gate}; {run.path / FILE} says why of each")
    return run
