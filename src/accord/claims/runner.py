"""`accord claims`: run claims, write their results pages, print their verdicts."""

import math
import time
from pathlib import Path
from typing import Any

from accord.claims import (
    adaptive_kl,
    alarms,
    anneal,
    annotators,
    assistance,
    boundary,
    bradley_terry,
    constitution,
    cost_of_feedback,
    critics,
    decoupling,
    demo,
    dpo,
    drift,
    fused_questions,
    gates,
    graded_skills,
    honesty,
    kl_limits,
    label_noise,
    online,
    overoptimisation,
    oversight,
    pipeline,
    planted,
    pm_scaling,
    ptx,
    red_team_data,
    representation,
    revisions,
    small_beats_large,
    sqrt_kl,
    tax,
    tension,
    thresholds,
    transitivity,
    two_halves,
)
from accord.claims.config import Claims
from accord.claims.lab.cells import Cells, OutOfTime
from accord.claims.lab.contract import (
    FIRST_VERDICT_SEED,
    Claim,
    at_level,
    earlier_tries,
    level_of,
    recomputed,
    verdict_of,
    write_results,
)
from accord.disk import read_json
from accord.errors import BadInput, did_you_mean

CLAIMS: dict[str, Claim] = {
    module.CLAIM.name: module.CLAIM
    for module in (
        gates,
        graded_skills,
        demo,
        pipeline,
        small_beats_large,
        sqrt_kl,
        kl_limits,
        overoptimisation,
        two_halves,
        alarms,
        adaptive_kl,
        critics,
        ptx,
        tax,
        tension,
        decoupling,
        fused_questions,
        thresholds,
        anneal,
        dpo,
        bradley_terry,
        pm_scaling,
        planted,
        label_noise,
        annotators,
        representation,
        online,
        drift,
        assistance,
        honesty,
        boundary,
        transitivity,
        revisions,
        constitution,
        red_team_data,
        oversight,
        cost_of_feedback,
    )
}


def run(config: Claims) -> list[dict[str, Any]]:
    """Run the named claims, or list them all; returns their results."""
    if not config.names:
        for claim in CLAIMS.values():
            print(f"{claim.name:<18}{claim.claim}\n{'':<18}rule: {claim.rule}")
        return []
    for name in config.names:
        if name not in CLAIMS:
            raise BadInput(f"there is no claim {name!r}{did_you_mean(name, CLAIMS)}; there are {', '.join(CLAIMS)}")
    folder = Path(config.results) if config.results else Path(config.out) / "results"
    if config.verify:
        return verify(config.names, folder)
    seeds = list(range(config.first_seed, config.first_seed + config.seeds))
    if config.first_seed < FIRST_VERDICT_SEED <= seeds[-1] or (config.first_seed < 10 <= seeds[-1]):
        raise BadInput("develop on seeds 0-9 or reach verdicts on seeds from 1000; do not mix them")
    until = time.time() + 60 * config.minutes if config.minutes else math.inf
    results = []
    for name in config.names:
        try:
            results.append(run_claim(CLAIMS[name], config, seeds, until))
        except OutOfTime as left:
            print(f"  stopped after {config.minutes:g} minutes: {left}; the same command goes on from here")
            break
    return results


def verify(names: list[str], folder: Path) -> list[dict[str, Any]]:
    """Compute every interval and verdict of NAME.json again from the seeds' values in it; BadInput if one differs."""
    results, wrong = [read_json(folder / f"{name}.json") for name in names], []
    for result in results:
        found = recomputed(result)
        print(f"{result['name']}: {'; '.join(found) or 'intervals and verdict ' + result['verdict'] + ' follow'}")
        wrong += found
    if wrong:
        raise BadInput(f"{len(wrong)} of the numbers in {folder} do not follow from the values of their seeds")
    return results


def run_claim(claim: Claim, config: Claims, seeds: list[int], until: float = math.inf) -> dict[str, Any]:
    """One claim: its cells, its numbers, its page."""
    from accord.world import VERSION, world_hash

    print(f"claim {claim.name}: {claim.claim}\n  rule: {claim.rule}", flush=True)
    folder = Path(config.results) if config.results else Path(config.out) / "results"
    stored = folder / f"{claim.name}.json"
    earlier = earlier_tries(read_json(stored) if stored.exists() else None, seeds)
    level = level_of(len(earlier) + 1)
    cells = Cells(Path(config.out), config.scale, until)
    finding = claim.measure(cells, seeds)
    parts = [at_level(part, level) for part in finding.parts]
    result: dict[str, Any] = {
        "name": claim.name,
        "claim": claim.claim,
        "source": claim.source,
        "statistic": claim.statistic,
        "rule": claim.rule,
        "value": parts[0].json()["mean"],
        "interval": [parts[0].json()["low"], parts[0].json()["high"]],
        "values": parts[0].json().get("values"),
        "parts": [part.json() for part in parts],
        "notes": list(finding.notes),
        "seeds": seeds,
        "tries": len(earlier) + 1,
        "earlier": earlier,
        "n": parts[0].interval.n,
        "verdict": verdict_of(parts),
        "scale": config.scale,
        "world": f"{VERSION} {world_hash()}",
        "config_hash": cells.hash(),
        "seconds": round(cells.seconds(), 1),
    }
    write_results(folder, result, finding.figure)
    print(f"  {result['verdict']} (config {result['config_hash']}); {folder / (claim.name + '.md')}", flush=True)
    return result
