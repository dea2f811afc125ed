"""Principles at work: replies criticised and revised, replies compared, or principles made of votes."""

from collections.abc import Callable
from pathlib import Path

from accord.data.sources import read_comparisons, read_prompts
from accord.disk import write_text
from accord.labelers.backends import Labelers
from accord.labelers.constitution_file import read_constitution, to_yaml
from accord.labelers.journal import Journal
from accord.labelers.trust import read_calibration
from accord.records import Comparison, Prompt
from accord.run import RunFolder
from accord.stages.constitution.calibrate import calibrate, plainly_decided, way_of_asking
from accord.stages.constitution.compare import compare, draw_replies, refuse_unfit
from accord.stages.constitution.config import Constitution
from accord.stages.constitution.revise import Writers, refuse_none, revise, steps_profile, write_demonstrations
from accord.stages.constitution.steer import steer
from accord.stages.constitution.votes import from_votes, summary
from accord.stages.shared import load_all, load_criterion, open_run, replies_by_prompt
from accord.training import distributed


def run(config: Constitution) -> RunFolder:
    """Make what `--make` says; leaves a folder with the constitution that was used, or made, as `constitution.yaml`."""
    named = {
        "model": config.model,
        "model.critic": config.critic,
        "model.judge": config.judge,
        "samples": config.replies,
        "calibration": config.calibration,
    }
    with open_run("constitution", config, {role: where for role, where in named.items() if where}) as run:
        if not run.finished:
            MAKE[config.make](config, run)
        return run


def make_principles(config: Constitution, run: RunFolder) -> None:
    """Statements and votes → `constitution.yaml` and `consensus.json`."""
    constitution, facts = from_votes(config.from_votes, config.statements, config.keep)
    print(summary(facts))
    write_text(run.path / "constitution.yaml", to_yaml(constitution))
    run.write_json("consensus.json", facts)
    run.finish(principles=len(constitution.principles))


def make_demonstrations(config: Constitution, run: RunFolder) -> None:
    """Replies, critiques, revisions → `samples.jsonl`, `demonstrations.jsonl` and `revisions.json`."""
    constitution = read_constitution(config.constitution)
    write_text(run.path / "constitution.yaml", to_yaml(constitution))
    prompts: list[Prompt] = load_all(read_prompts, config.data, config, run, split=config.split)
    helpful: list[Prompt] = (
        load_all(read_prompts, config.helpful, config, run, split=config.split, what="helpful")
        if config.helpful
        else []
    )
    with Journal(run.path / "journal.jsonl") as journal:
        labelers = Labelers(config, distributed.start(run.threads), journal, config.cache_tokens)
        policy = labelers.named(config.model)
        critic = labelers.named(config.critic) if config.critic else policy
        revise(config, run, Writers(policy, critic), constitution, prompts)
        counts = write_demonstrations(config, run, helpful, policy)
    run.write_json("revisions.json", steps_profile(run))
    run.finish(**counts)


def make_comparisons(config: Constitution, run: RunFolder) -> None:
    """Replies → `comparisons.jsonl`, `labels.jsonl` and `watch.json`."""
    constitution = read_constitution(config.constitution)
    refuse_unfit(config, constitution)
    write_text(run.path / "constitution.yaml", to_yaml(constitution))
    with Journal(run.path / "journal.jsonl") as journal:
        labelers = Labelers(config, distributed.start(run.threads), journal, config.cache_tokens)
        judge = labelers.named(config.judge or config.model)
        maps = read_calibration(config.calibration, way_of_asking(config, judge, constitution), config.mapping)
        if not config.replies:
            prompts: list[Prompt] = load_all(read_prompts, config.data, config, run, split=config.split)
            draw_replies(config, run, labelers.named(config.model) if config.judge else judge, prompts)
        known = check_items(config, run) if config.checks else []
        compare(config, run, judge, constitution, replies_by_prompt(Path(config.replies or run.path)), maps, known)


def check_items(config: Constitution, run: RunFolder) -> list[Comparison]:
    """Comparisons of `--checks` that somebody has plainly decided."""
    found: list[Comparison] = load_criterion(
        read_comparisons, config.checks, config, run, config.criterion, what="checks"
    )
    return plainly_decided(found)


def make_calibration(config: Constitution, run: RunFolder) -> None:
    """Labelled comparisons → `calibration.json`."""
    measure(config, run, calibrate)


def measure(config: Constitution, run: RunFolder, by: Callable[..., None]) -> None:
    """Have the judge measured on labelled comparisons by one of the functions for it."""
    constitution = read_constitution(config.constitution)
    if config.question == "choice":
        refuse_unfit(config, constitution)
    else:
        refuse_none(config, constitution.scoring(config.tags), "has a text that replies are scored under")
    labelled: list[Comparison] = load_criterion(
        read_comparisons, config.data, config, run, config.criterion, split=config.split
    )
    with Journal(run.path / "journal.jsonl") as journal:
        labelers = Labelers(config, distributed.start(run.threads), journal, config.cache_tokens)
        by(config, run, labelers.named(config.judge or config.model), constitution, labelled)


def make_steering(config: Constitution, run: RunFolder) -> None:
    """Labelled comparisons → `steering.json`: what texts inside the worse replies do to the judge."""
    measure(config, run, steer)


MAKE: dict[str, Callable[[Constitution, RunFolder], None]] = {
    "demonstrations": make_demonstrations,
    "comparisons": make_comparisons,
    "calibration": make_calibration,
    "steering": make_steering,
    "principles": make_principles,
}
