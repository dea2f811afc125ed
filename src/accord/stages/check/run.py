"""Check: everything that can be known before anything is trained, on one page.

What configs, tokenizers and the template say comes first (`models.preflight`, which every stage asks too); if nothing
is wrong with that, the models are loaded: three replies, and the scores of others' models where their cards read them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from accord.data.chat import Renderer
from accord.engine.engines import Engine, InProcess, Served
from accord.engine.remote.vllm import servers_at
from accord.errors import BadInput
from accord.models.loading import load_policy
from accord.models.places import describe
from accord.models.preflight import (
    Diagnosis,
    generation_findings,
    model_findings,
    reference_findings,
    role_finding,
)
from accord.models.scorers import is_elsewhere
from accord.models.tokenizer import load_renderer
from accord.records import Prompt, Rollout, Turn
from accord.stages.check.config import Check
from accord.stages.check.data import read_data
from accord.stages.check.machine import machine_findings, step_finding
from accord.stages.check.scores import card_finding
from accord.stages.check.served import distribution_finding, engine_finding
from accord.stages.check.template import template_findings
from accord.stages.shared import sample_settings

QUESTIONS = ("What is the capital of France?", "Name three birds that live by the sea.", "How do I boil an egg?")
MARKS = {"fine": "[green]fine [/]", "note": "[yellow]note [/]", "wrong": "[red]wrong[/]"}


def run(config: Check) -> list[Diagnosis]:
    """Print the page; raises BadInput where something on it is wrong."""
    scorers = {**dict.fromkeys(config.rewards.values(), "preference"), **dict.fromkeys(config.costs.values(), "cost")}
    scorers = {where: role for where, role in scorers.items() if not is_elsewhere(where)}
    own_role = describe(config.model)["role"]
    if own_role != "policy":
        scorers[config.model] = own_role
    longest, knobs = config.most_tokens
    found = [*model_findings(config.model, longest=longest, knobs=knobs), *generation_findings(config.model)]
    found += machine_findings(config.model)
    if config.reference:
        found += model_findings(config.reference, longest=longest, knobs=knobs)
        found += reference_findings(config.model, config.reference)
    for where, role in scorers.items():
        found.append(role_finding(where, role))
        found += model_findings(where, longest=longest, knobs=knobs) if where != config.model else []
    renderer = load_renderer(config.model, **({"clock": lambda: config.clock} if config.clock else {}))
    found += template_findings(renderer)
    if config.engine:
        found += [engine_finding(server, longest, knobs) for server in servers_at(config.engine)]
    prompts = [Prompt((Turn("user", question),), "", "") for question in QUESTIONS]
    if config.data:
        findings, read = read_data(config, renderer)
        found += findings
        prompts = read or prompts
    wrong = [finding for finding in found if finding.level == "wrong"]
    if wrong:
        show(config.model, found)
        raise BadInput(f"{len(wrong)} must be mended first; {wrong[0].said}; {wrong[0].remedy}")
    found += [card_finding(where, role) for where, role in scorers.items()]
    if own_role != "policy":
        show(config.model, found)
        return found
    model = load_policy(config.model)
    found.append(step_finding(model, config.max_length))
    prompts = prompts[:3]
    rollouts = replies(config, model, renderer, prompts)
    if config.engine:
        found.append(distribution_finding(model, rollouts))
    show(config.model, found)
    show_replies(config, renderer, prompts, rollouts)
    return found


def replies(config: Check, model: Any, renderer: Renderer, prompts: Sequence[Prompt]) -> list[Rollout]:
    """A reply to each prompt, by the server if there is one: with the weights that it has."""
    rows = model.config.get_text_config().vocab_size
    engine: Engine = InProcess(model)
    if config.engine:
        engine = Served(servers_at(config.engine), Path(), rows)
    asked = [renderer.prompt_ids(prompt.turns) for prompt in prompts]
    with torch.no_grad():
        return engine.sample(asked, sample_settings(config, renderer, 1, config.seed))


def show_replies(config: Check, renderer: Renderer, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> None:
    """Print each reply with what ended it."""
    from rich.console import Console

    console = Console(soft_wrap=True, markup=False, highlight=False)
    for prompt, rollout in zip(prompts, rollouts, strict=True):
        ended = {"stop": "a stop token", "length": f"--max_new_tokens {config.max_new_tokens}"}[rollout.finish]
        console.print(f"\n{prompt.turns[-1].role}: {prompt.turns[-1].content}")
        console.print(f"assistant: {renderer.text(rollout.ids)}\n({len(rollout.ids)} tokens, ended by {ended})")


def show(model: str, findings: Sequence[Diagnosis]) -> None:
    """Print the page: a line for what was found, and below it what is to be done."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True, highlight=False)
    console.print(escape(model))
    for finding in findings:
        console.print(f"{MARKS[finding.level]}  {finding.about}: {escape(finding.said)}")
        if finding.remedy:
            console.print(f"       → {escape(finding.remedy)}")
