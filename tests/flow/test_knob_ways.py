"""How far the value of a knob travels in one iteration of PPO: the files whose functions are handed it."""

import sys
from pathlib import Path

import pytest

import accord
from accord.stages.ppo import actors as ppo_actors
from accord.stages.ppo import run as ppo
from accord.stages.ppo.state import first_state
from accord.stages.ppo.watch import Guard
from tests.flow.test_ppo_road import ONE, configure

SOURCE = str(Path(accord.__file__).parent)
MOST = 8  # files
CHOICES = {
    "gae": {},
    "shared": {"critic": "shared", "value_clip": 0.3},
    "grpo": {"advantages": "grpo", "samples": 2, "kl_in": "loss", "kl_estimator": "k3"},
}


def told_apart(value):
    """The same number as an object of its own, whose identity says which knob it is."""
    return type(value)(repr(value)) if type(value) is float or (type(value) is int and value > 256) else value


def travelled(work, config):
    """Knob → files whose functions were handed its value while `work` ran."""
    names = {id(v): n for n, v in vars(config).items() if told_apart(v) is not v}
    ways = {name: set() for name in names.values()}

    def watch(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SOURCE):
            for argument in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
                name = names.get(id(frame.f_locals.get(argument)))
                if name is not None:
                    ways[name].add(code.co_filename)

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return ways


@pytest.mark.parametrize("choice", ["gae", pytest.param("shared", marks=pytest.mark.slow), "grpo"])
def test_no_knob_passes_through_more_than_eight_files(choice, commands, tmp_path):
    from accord.stages.shared import open_run

    given = configure(commands, tmp_path / "run", "limited", precision="f32", batch_size=4, **CHOICES[choice])
    config = given.model_copy(update={name: told_apart(value) for name, value in vars(given).items()})
    with open_run("ppo", config) as run:
        prompts, actors = ppo_actors.prepare(config, run, ONE)
        optimizers = ppo.build_optimizers(config, actors)
        guard, state = Guard(config.rules, actors.policy, quiet=True), first_state(config)
        ways = travelled(
            lambda: ppo.iterate(config, run, ONE, prompts.training, actors, optimizers, guard, state), config
        )
    assert {name for name, files in ways.items() if files} >= {"clip", "temperature", "learning_rate"}
    longest = {name: sorted(files) for name, files in ways.items() if len(files) > MOST}
    assert not longest, longest
