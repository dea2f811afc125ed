"""A whole run of policy optimisation with parts that stand aside: what it reads, keeps, says and leaves, and when."""

import itertools
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

from accord.stages.ppo import run as ppo
from accord.stages.ppo.actors import Prompts
from accord.stages.ppo.state import State
from accord.training.distributed import World
from tests.flow.test_ppo_road import ONE, make_config

METRICS = {"objective/scores": 1.5, "objective/kl": 0.5, "cost/harm/mean": 2.5, "loss/policy": 9.0}


class Interrupted(Exception):
    pass


class Recorded:
    """What was called with what, in order; `of(name)` are the calls of one name."""

    def __init__(self):
        self.calls = []

    def called(self, name, found=None):
        def call(*given, **named):
            self.calls.append((name, *given, *named.values()))
            return found(*given) if callable(found) else found

        return call

    def of(self, name):
        return [rest for called, *rest in self.calls if called == name]

    def names(self):
        return [call[0] for call in self.calls]


def stand_aside(monkeypatch, seen, run, world, actors, *, good, held_out, latest, ends_at, due):
    """Put stand-ins in the place of everything that `run` calls; returns the state of the run."""
    state, clock = State(0, 0.5, {}), itertools.count()
    stored = State(2, 0.25, {})
    current = [state]

    def iterate(config, run, world, prompts, actors, optimizers, guard, given):
        if given.step + 1 == ends_at:
            given.ended = "alarm"
        return dict(METRICS)

    def restore(saved):
        current[0] = stored
        return stored

    @contextmanager
    def open_run(stage, config, parents):
        seen.called("open_run")(stage, config, parents)
        yield run
        seen.called("closed")()

    monkeypatch.setattr(ppo, "open_run", open_run)
    prompts = Prompts(["t"], ["h"] if held_out else [], ["s"])
    parts = {
        "refuse_unknown_metrics": None,
        "first_state": state,
        "prepare": (prompts, actors),
        "settle_actors": lambda config, *rest: config.model_copy(update={"micro_tokens": 77}),
        "lower_frozen": None,
        "Guard": SimpleNamespace(good=good),
        "trained_modules": lambda *given: {"policy": "P", "critics": "C"},
        "shard": None,
        "build_optimizers": lambda *given: {"policy": "O"},
        "restore": restore,
        "iterate": iterate,
        "imagined_pass": ("once", 5.0),
        "save_state": lambda given: {"step": given.step},
        "last_look": None,
        "check_limits": {"harm": "judged"},
        "finish": None,
        "parents_of": {"model.helpful": "server"},
    }
    for name, found in parts.items():
        monkeypatch.setattr(ppo, name, seen.called(name, found))
    monkeypatch.setattr(ppo, "whole", lambda model: nullcontext(f"whole {model}"))
    monkeypatch.setattr(ppo, "time", SimpleNamespace(perf_counter=lambda: next(clock) ** 2))
    monkeypatch.setattr(ppo.distributed, "start", seen.called("start", world))
    kept = SimpleNamespace(latest=seen.called("latest", latest))
    kept.load = lambda path, modules, optimizers: seen.called("load", "stored")(path, dict(modules), dict(optimizers))
    kept.Due = seen.called("Due", SimpleNamespace(after=lambda step: step == due))
    kept.save = lambda folder, step, modules, optimizers, kept: seen.called("save")(
        folder, step, dict(modules), dict(optimizers), kept
    )
    monkeypatch.setattr(ppo, "checkpoint", kept)
    compilation = SimpleNamespace(consider=seen.called("consider"))
    monkeypatch.setattr(ppo, "Compilation", seen.called("Compilation", compilation))
    monkeypatch.setattr(ppo, "Progress", seen.called("Progress", SimpleNamespace(update=seen.called("update"))))
    return current


@pytest.fixture
def whole_run(monkeypatch, tmp_path):
    """`whole_run(**what happens)` → what was called, and how the run ended."""

    def go(*, world=ONE, good=None, held_out=False, latest=None, ends_at=0, due=0, stop_at=0, finished=False, **knobs):
        seen = Recorded()
        run = SimpleNamespace(path=tmp_path, finished=finished, threads=3, stop_requested=False)

        def log(row):
            run.stop_requested = row["step"] == stop_at
            seen.called("log")(row)

        run.log, run.truncate_logs, run.interrupted = log, seen.called("truncate_logs"), Interrupted
        in_flight = SimpleNamespace(restore=seen.called("bring_back"), saved=lambda world, samples: {"ahead": samples})
        engine = SimpleNamespace(close=seen.called("close"))
        actors = SimpleNamespace(policy="policy", critics="critics", models="models", frozen=["F"], result="result")
        actors.journal, actors.engine, actors.in_flight = nullcontext(), engine, in_flight
        happens = {"good": good, "held_out": held_out, "latest": latest, "ends_at": ends_at, "due": due}
        stand_aside(monkeypatch, seen, run, world, actors, **happens)
        if world.size > 1:
            monkeypatch.setattr(World, "gather", lambda self, value: [value, (False, False)])
        config = make_config(costs={"harm": "c"}, watch={"w": "x"}, steps=3, samples=4, precision="f32", **knobs)
        seen.config, seen.settled, seen.actors = config, config.model_copy(update={"micro_tokens": 77}), actors
        try:
            seen.found = ppo.run(config)
        except Interrupted as error:
            seen.found = error
        seen.run = run
        return seen

    return go


def test_a_run_reads_first_then_iterates_then_leaves_what_it_has(whole_run, tmp_path):
    seen = whole_run(due=2, held_out=True, checkpoint_every=8, checkpoint_minutes=7.0)
    config, settled, run, actors = seen.config, seen.settled, seen.run, seen.actors
    parents = {"model": "m", "reference": "m", "reward.helpful": "r", "cost.harm": "c", "watch.w": "x"}
    assert seen.of("open_run") == [["ppo", config, parents | {"model.helpful": "server"}]]
    assert seen.of("parents_of") == [[{"helpful": "r", "w": "x"}, config.labels]]
    assert seen.of("start") == [[3, config.shard]] and seen.of("refuse_unknown_metrics") == [[config.rules]]
    assert seen.of("prepare") == [[config, run, ONE]]
    assert seen.of("settle_actors") == [[config, run, ONE, ["t"], actors]]
    assert seen.of("lower_frozen") == [["models", "f32", 0]] and seen.of("Guard") == [[[], "policy", False]]
    assert seen.of("shard") == [["F", ONE], ["P", ONE], ["C", ONE]]
    assert seen.of("latest") == [[tmp_path / "checkpoints"]] and seen.of("load") == seen.of("bring_back") == []
    assert seen.of("truncate_logs") == [[0]] and seen.of("Due") == [[8, 7.0]]
    assert seen.of("Compilation") == [[run, ONE, ["policy", "critics"], False]]
    assert seen.of("Progress") == [["ppo", 3, 0, False]]
    (state,) = {id(given[-1]): given[-1] for given in seen.of("iterate")}.values()
    assert [given[:5] for given in seen.of("iterate")] == [[settled, run, ONE, ["t"], actors]] * 3 and state.step == 3
    assert seen.of("log") == [[{"step": step, **METRICS}] for step in (1, 2, 3)]
    shown = {name: METRICS[name] for name in ("objective/scores", "objective/kl", "cost/harm/mean")}
    assert seen.of("update") == [[step, shown] for step in (1, 2, 3)]
    # an iteration takes 1, 5 and 9 seconds, of which so many are left
    assert seen.of("consider") == [[2 * 1, "once", 5.0], [1 * 5, "once", 5.0], [0, "once", 5.0]]
    assert [given[:3] + given[4:] for given in seen.of("imagined_pass")] == [[settled, actors, ["t"], ONE.device]] * 3
    modules, optimizers = {"policy": "P", "critics": "C"}, {"policy": "O"}
    assert seen.of("save") == [
        [tmp_path / "checkpoints", 2, modules, optimizers, {"step": 2, "ahead": 4}],
        [tmp_path / "checkpoints", 3, modules, optimizers, {"step": 3}],
    ]
    assert seen.of("last_look") == []
    assert seen.of("check_limits") == [[settled, run, ONE, actors, "whole result", ["h"]]]
    prompts = Prompts(["t"], ["h"], ["s"])
    assert seen.of("finish") == [[settled, run, prompts, actors, "whole result", {"harm": "judged"}, state]]
    names = seen.names()
    assert seen.found is run and names[-1] == "closed"
    assert names.index("close") < names.index("check_limits") and names.count("close") == 2


def test_a_reference_of_its_own_is_a_parent(whole_run):
    assert whole_run(reference="z").of("open_run")[0][2]["reference"] == "z"


def test_a_run_that_is_finished_is_given_back(whole_run):
    seen = whole_run(finished=True)
    assert seen.found is seen.run and seen.names() == ["parents_of", "open_run", "closed"]


def test_without_held_out_prompts_no_limit_is_checked(whole_run):
    seen = whole_run()
    assert seen.of("check_limits") == [] and seen.of("finish")[0][5] == {}


def test_a_checkpoint_is_gone_on_from(whole_run):
    seen = whole_run(latest="step-2")
    assert seen.of("load") == [["step-2", {"policy": "P", "critics": "C"}, {"policy": "O"}]]
    assert seen.of("restore") == [["stored"]] and seen.of("bring_back") == [["stored", ONE]]
    assert seen.of("truncate_logs") == [[2]] and seen.of("Progress") == [["ppo", 3, 2, False]]
    assert [row[0]["step"] for row in seen.of("log")] == [3]


def test_an_alarm_ends_the_run_with_a_checkpoint_and_no_last_look(whole_run):
    seen = whole_run(ends_at=2, good="weights")
    assert len(seen.of("iterate")) == 2 and [given[1] for given in seen.of("save")] == [2]
    assert seen.of("save")[0][4] == {"step": 2} and seen.of("last_look") == [] and len(seen.of("finish")) == 1


def test_the_last_step_is_looked_at_where_a_rule_can_roll_back(whole_run):
    seen = whole_run(good="weights")
    ((config, world, prompts, actors, guard, state),) = seen.of("last_look")
    assert (config, world, prompts, actors, guard.good) == (seen.settled, ONE, ["t"], seen.actors, "weights")
    assert state.step == 3 and seen.names().index("last_look") > len(seen.names()) - 6


@pytest.mark.parametrize(("stop_at", "interrupted"), [(1, True), (2, True), (3, False)])
def test_a_run_that_is_asked_to_stop_keeps_where_it_is_and_ends_there(whole_run, stop_at, interrupted):
    seen = whole_run(stop_at=stop_at)
    assert len(seen.of("iterate")) == stop_at and [given[1] for given in seen.of("save")] == [stop_at]
    if interrupted:
        assert isinstance(seen.found, Interrupted) and seen.found.args == (stop_at,)
        assert seen.of("save")[0][4] == {"step": stop_at, "ahead": 4} and seen.of("finish") == []
        assert seen.names()[-1] == "close"
    else:
        assert seen.found is seen.run and len(seen.of("finish")) == 1


@pytest.mark.parametrize("sharded", [False, True])
def test_another_rank_computes_and_says_nothing(whole_run, sharded):
    world = World(1, 2, ONE.device, sharded)
    seen = whole_run(world=world, good="weights")
    assert len(seen.of("iterate")) == 3 and seen.of("log") == seen.of("finish") == []
    assert seen.of("Progress")[0][-1] is True and seen.of("Guard")[0][-1] is True
    assert len(seen.of("save")) == (1 if sharded else 0) and seen.of("Compilation")[0][-1] is sharded
    assert len(seen.of("last_look")) == 1
