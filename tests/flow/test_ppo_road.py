"""The PPO loop on tiny models: what stands between the formulas and the command."""

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from accord.engine import engines
from accord.engine.decode import sampler
from accord.engine.forward.causal import hidden_states, logprobs_and_entropy, token_logprobs
from accord.engine.packing import pack, reply_group
from accord.models.limits import Limit
from accord.models.loading import load_policy
from accord.objectives.lagrange import Multiplier
from accord.records import Prompt, Rollout, Turn
from accord.run import RunFolder
from accord.stages.ppo import actors as ppo_actors
from accord.stages.ppo import advantages as ppo_advantages
from accord.stages.ppo import limits as ppo_limits
from accord.stages.ppo import log as ppo_log
from accord.stages.ppo import rollouts as ppo_rollouts
from accord.stages.ppo import run as ppo
from accord.stages.ppo import state as ppo_state
from accord.stages.ppo import update as ppo_update
from accord.stages.ppo import watch as ppo_watch
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.experience import Experience
from accord.stages.ppo.memory import imagined_pass, longest_rollouts
from accord.stages.ppo.rollouts import complete
from accord.training.distributed import World

ONE = World(0, 1, torch.device("cpu"))


def configure(commands, out, name="ppo", **changes):
    """The config that the command line would make."""
    from accord.parsing import parse

    return parse("ppo", commands.line(name, out, **changes)[1:])


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def road(commands, tmp_path):
    """Prepared actors and one collected batch: `road(name, **changes)` → config, actors, experience, state."""
    open_runs = []

    def prepare(name="ppo", **changes):
        config = configure(commands, tmp_path / f"run{len(open_runs)}", name, **{"precision": "f32", **changes})
        run = RunFolder("ppo", config).__enter__()
        open_runs.append(run)
        prompts, actors = ppo_actors.prepare(config, run, ONE)
        state = ppo_state.first_state(config)
        experience = ppo_rollouts.collect(config, ONE, actors, prompts.training[-config.batch_size :], state)
        return config, actors, experience, state

    yield prepare
    for run in open_runs:
        run.__exit__(None, None, None)


def shaped(config, experience, state):
    return ppo_advantages.compute_advantages(config, complete(config, experience), state)


def moved(config, experience, state):
    limits = {name: Limit(name, bound) for name, bound in config.limits.items()}
    return ppo_limits.move_multipliers(config, limits, complete(config, experience), state)


def make_experience(*, lengths=(3, 2), finish=("stop", "stop"), slices=("a", "b"), values=None, **scores):
    """Rollouts whose numbers are chosen by hand; kl is 0.1, 0.2, 0.3 along the reply."""
    width = max(lengths)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    kl = torch.where(mask, torch.tensor([0.1, 0.2, 0.3])[:width].expand(len(lengths), -1), torch.tensor(0.0))
    prompts = [Prompt((Turn("user", s),), s, "by hand") for s in slices]
    rollouts = [Rollout((1,), (5,) * n, (-1.0,) * n, f, 1.0, "") for n, f in zip(lengths, finish, strict=True)]
    values = values or {"reward": torch.zeros(len(lengths), width)}
    named = {n: torch.tensor(s) for n, s in scores.items()}
    raw = {n: score for n, score in named.items() if n == "harm"}
    return Experience(prompts, rollouts, [], mask, torch.zeros_like(kl), -kl, kl, named, values, raw)


def micro(config, actors, experience, advantages, returns, rows, chosen=None):
    """Loss and metrics of some prompts (`rows`) of one mini-batch (`chosen`, by default the same)."""
    targets = ppo_update.Targets(advantages, returns, config.kl_coefficient, 0)
    batch = ppo_update.mini_batch(config, experience, list(rows if chosen is None else chosen))
    return ppo_update.micro_loss(config, actors, experience, targets, batch, list(rows), ONE.device)


def make_config(**changes):
    settings = {"model": "m", "data": "d", "out": "o", "rewards": {"helpful": "r"}, "kl_coefficient": 0.5}
    with_critics = {} if "advantages" in changes else {"whiten": False, "lam": 1.0}
    return Ppo(**{**settings, **with_critics, **changes})


LIMITED = {"costs": {"harm": "c"}, "limits": {"harm": 0.0}}


def test_the_pass_that_a_choice_of_kernels_times_is_that_of_a_step(road):
    config, actors, _, _ = road(steps=4, batch_size=8, mini_batch_size=4, ppo_epochs=2)
    prompts = [Prompt((Turn("user", text),), "", "by hand") for text in ("why", "how bakes the cat", "help me")]
    once, left = imagined_pass(config, actors, prompts, 1, torch.device("cpu"))
    once()
    gradients = [p.grad for p in actors.policy.parameters() if p.requires_grad]
    assert gradients and all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert left == 3 * 2 * 2, "iterations that are left, passes over each, mini-batches of each"


def test_a_prompt_with_more_replies_than_a_mini_batch_is_imagined_all_the_same(road):
    config, actors, _, _ = road(samples=4, batch_size=4, mini_batch_size=2)
    prompts = [Prompt((Turn("user", text),), "", "by hand") for text in ("why", "how bakes the cat")]
    (group,) = longest_rollouts(config, actors, prompts)
    assert group.prefix == tuple(actors.renderer.prompt_ids(prompts[1].turns)) and len(group.replies) == 4


def test_the_updates_of_all_iterations_take_other_texts_one_after_the_other(commands, road, monkeypatch):
    config, actors, _, _ = road(
        batch_size=8, mini_batch_size=4, ppo_epochs=2, ptx_data=commands.files / "documents.jsonl"
    )
    actors = replace(actors, other_text=[reply_group((1,), (2, 3))] * 30)
    taken = []
    monkeypatch.setattr(ppo_update, "batch_indices", lambda step, *rest: taken.append(step) or [0])
    monkeypatch.setattr(ppo_update, "backward", lambda *rest: {})
    for iteration in range(3):
        for number in range(4):
            ppo_update.learn_other_text(config, ONE, actors, iteration, number)
    assert taken == list(range(12))


def test_c8_kl_is_charged_once_and_the_score_stands_at_the_end():
    """C8, C1: with values 0, γ = λ = 1 the advantage at t is score − β·Σ_{u ≥ t} kl_u, and nothing else."""
    experience = make_experience(helpful=[1.0, 2.0])
    advantages, returns, metrics = shaped(make_config(), experience, ppo_state.State(0, 0.5, {}))
    expected = torch.tensor([[1 - 0.30, 1 - 0.25, 1 - 0.15], [2 - 0.15, 2 - 0.10, 0.0]])
    assert torch.allclose(advantages, expected)
    assert torch.allclose(returns["reward"], expected)
    assert metrics["objective/rlhf_reward"] == pytest.approx((0.7 + 1.85) / 2)


@pytest.mark.parametrize("multiplier", [0.0, 1.0, 5.0])
def test_d1_the_kl_weight_of_the_loop_is_beta_for_every_multiplier(multiplier):
    values = {name: torch.zeros(2, 3) for name in ("reward", "harm")}
    experience = make_experience(helpful=[0.0, 0.0], harm=[0.0, 0.0], values=values)
    state = ppo_state.State(0, 0.5, {"harm": Multiplier(multiplier, multiplier)})
    advantages, _, _ = shaped(make_config(**LIMITED), experience, state)
    expected = torch.tensor([[-0.30, -0.25, -0.15], [-0.15, -0.10, 0.0]])
    assert torch.allclose(advantages, expected, atol=1e-6)


@pytest.mark.parametrize("multiplier", [0.0, 1.0, 5.0])
@pytest.mark.parametrize(
    ("advantages", "expected"),
    [
        # β times the KL of whole replies, 0.6 and 0.3, less the mean of the others or of all
        ("rloo", [[-0.15, -0.15, -0.15], [0.15, 0.15, 0.0]]),
        ("dr-grpo", [[-0.075, -0.075, -0.075], [0.075, 0.075, 0.0]]),
        ("grpo", [[-1.0, -1.0, -1.0], [1.0, 1.0, 0.0]]),
    ],
)
def test_d1_the_kl_weight_is_beta_without_critics_too(multiplier, advantages, expected):
    experience = make_experience(helpful=[0.0, 0.0], harm=[0.0, 0.0], slices=("a", "a"), values={})
    state = ppo_state.State(0, 0.5, {"harm": Multiplier(multiplier, multiplier)})
    config = make_config(**LIMITED, advantages=advantages, samples=2)
    found, returns, _ = shaped(config, experience, state)
    assert torch.allclose(found, torch.tensor(expected), atol=1e-4) and returns == {}


def test_kl_in_the_loss_is_in_no_stream_and_still_in_the_objective():
    experience = make_experience(helpful=[1.0, 2.0])
    config = make_config(kl_in="loss", kl_estimator="k2")
    found, _, metrics = shaped(config, complete(config, experience), ppo_state.State(0, 0.5, {}))
    assert torch.allclose(found, torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 0.0]]))
    assert metrics["objective/rlhf_reward"] == pytest.approx((0.7 + 1.85) / 2)


def test_reinforce_whitens_what_comes_after_each_token():
    experience = make_experience(helpful=[1.0, -1.0])
    config = make_config(advantages="reinforce++", kl_coefficient=0.0)
    found, _, _ = shaped(config, experience, ppo_state.State(0, 0.0, {}))
    raw = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    kept = found[experience.mask]
    assert torch.allclose(kept, (raw - raw.mean()) / raw.std(correction=0), atol=1e-4)


def test_scaled_rewards_keep_their_mean():
    experience = make_experience(helpful=[3.0, 9.0])
    config = make_config(scale_rewards=True, kl_coefficient=0.0)
    stream = ppo_advantages.signal_streams(config, complete(config, experience), ppo_state.State(0, 0.0, {}))["reward"][
        experience.mask
    ]
    assert stream.mean() == pytest.approx(12 / 5) and stream.std(correction=0) == pytest.approx(1.0, abs=1e-5)


def test_the_tail_is_what_lies_above_all_but_a_hundredth_of_the_first_rewards():
    shape = {"lengths": (1,) * 200, "finish": ("stop",) * 200, "slices": ("a",) * 200}
    state, config = ppo_state.State(0, 0.5, {}), make_config()
    for rise, share in ((0.0, 0.01), (100.0, 0.51), (-100.0, 0.0)):
        experience = make_experience(**shape, helpful=[i + rise for i in range(200)])
        found = ppo_watch.watch_metrics((), complete(config, experience), state)
        assert found["watch/tail"] == pytest.approx(share)


def test_the_rates_hold_for_half_of_the_steps_and_then_fall():
    config = make_config(steps=5, schedule="linear", warmup=0.0, learning_rate=1.0, critic_learning_rate=2.0)
    optimizers = {name: torch.optim.SGD([torch.zeros(1)], lr=9.0) for name in ("policy", "critics")}
    for step, rate in enumerate([1.0, 1.0, 1.0, 0.7, 0.1]):  # held until step 2.5, at 10 % on step 4
        ppo_update.set_rates(config, optimizers, step)
        assert [o.param_groups[0]["lr"] for o in optimizers.values()] == pytest.approx([rate, 2 * rate])


def test_the_experience_of_two_ranks_is_one_in_the_order_of_the_prompts(monkeypatch):
    """Each rank has every second prompt, all replies of it; here both have drawn the same."""
    monkeypatch.setattr(World, "gather", lambda self, value: [value, value])
    part = make_experience(slices=("a", "a"), helpful=[1.0, 2.0], harm=[3.0, 4.0])
    part = replace(part, groups=["one group"])
    found = ppo_rollouts.gather(World(0, 2, ONE.device), part, 2)
    assert found.rollouts == [*part.rollouts, *part.rollouts] and found.groups == part.groups * 2
    assert torch.equal(found.mask, part.mask.repeat(2, 1)) and torch.equal(found.kl, part.kl.repeat(2, 1))
    assert found.scores["helpful"].tolist() == [1.0, 2.0] * 2 and found.raw_costs["harm"].tolist() == [3.0, 4.0] * 2
    assert ppo_rollouts.gather(ONE, part, 2) is part


def test_a_limit_on_a_slice_weighs_nothing_elsewhere():
    values = {name: torch.zeros(2, 3) for name in ("reward", "harm")}
    experience = make_experience(helpful=[1.0, 1.0], harm=[2.0, 2.0], values=values)
    state = ppo_state.State(0, 0.0, {"harm": Multiplier(3.0, 3.0)})
    config = make_config(**LIMITED, limit_slices={"harm": "a"}, kl_coefficient=0.0)
    advantages, _, _ = shaped(config, experience, state)
    assert torch.allclose(advantages[0], torch.full((3,), (1 - 3 * 2) / 4))
    assert torch.allclose(advantages[1], torch.tensor([1.0, 1.0, 0.0]))


def test_d5_only_raw_scores_are_clipped_and_the_multiplier_sees_them_unclipped():
    values = {name: torch.zeros(2, 3) for name in ("reward", "harm")}
    experience = make_experience(helpful=[9.0, -9.0], harm=[4.0, 0.5], values=values)
    config = make_config(**LIMITED, score_clip=1.0)
    state = ppo_state.State(0, 0.5, {"harm": Multiplier(0.0, 0.0)})
    _, returns, _ = shaped(config, experience, state)
    # ±1 after the clip; the KL on top of it is whole
    assert torch.allclose(returns["reward"][:, 0], torch.tensor([1 - 0.30, -1 - 0.15]))
    assert torch.allclose(returns["harm"][:, 0], torch.tensor([1 + 0.30, 0.5 + 0.15]))
    metrics = moved(config, experience, state)
    assert metrics["cost/harm/mean"] == pytest.approx(2.25)


def test_c2_the_penalty_looks_at_the_finish_and_not_at_a_token():
    experience = make_experience(finish=("length", "stop"), helpful=[1.0, 1.0])
    config = make_config(unfinished_penalty=0.4, kl_coefficient=0.0)
    advantages, _, _ = shaped(config, complete(config, experience), ppo_state.State(0, 0.0, {}))
    assert torch.allclose(advantages[:, 0], torch.tensor([0.6, 1.0]))


def test_c18_only_the_combined_advantage_is_whitened():
    values = {name: torch.zeros(2, 3) for name in ("reward", "harm")}
    experience = make_experience(helpful=[3.0, 1.0], harm=[2.0, -1.0], values=values)
    state = ppo_state.State(0, 0.5, {"harm": Multiplier(1.0, 1.0)})
    config = make_config(**LIMITED)
    plain, returns, _ = shaped(config, experience, state)
    white, same, _ = shaped(config.model_copy(update={"whiten": True}), experience, state)
    kept = white[experience.mask]
    assert kept.mean().abs() < 1e-6 and (kept**2).mean() == pytest.approx(1.0, abs=1e-4)
    raw = plain[experience.mask]
    assert torch.allclose(kept, (raw - raw.mean()) / raw.std(correction=0), atol=1e-4)
    assert all(torch.equal(returns[n], same[n]) for n in returns)


def test_d6_d2_multipliers_move_once_per_batch_by_the_raw_mean_on_the_slice():
    experience = make_experience(slices=("a", "b"), helpful=[0.0, 0.0], harm=[0.8, -5.0])
    config = make_config(**LIMITED, limit_slices={"harm": "a"}, multiplier_rate=0.1, multiplier_gain=0.5)
    state = ppo_state.State(0, 0.5, {"harm": Multiplier(2.0, 2.0)})
    metrics = moved(config, experience, state)
    assert state.multipliers["harm"].integral == pytest.approx(2 * math.exp(0.08))
    assert state.multipliers["harm"].value == pytest.approx(2 * math.exp(0.08 + 0.4))
    assert metrics["lagrange/harm"] == state.multipliers["harm"].value > 2.0
    assert metrics["cost/harm/mean"] == pytest.approx(0.8) and metrics["cost/harm/unsafe"] == 1.0


def test_d8_the_multiplier_sees_this_batch_and_no_average_with_older_ones():
    config = make_config(**LIMITED, multiplier_rate=0.1, multiplier_gain=0.0)
    state = ppo_state.State(0, 0.5, {"harm": Multiplier(2.0, 2.0)})
    for cost, integral in ((0.8, 2 * math.exp(0.08)), (-0.6, 2 * math.exp(0.08 - 0.06))):
        metrics = moved(config, make_experience(helpful=[0.0, 0.0], harm=[cost, cost]), state)
        assert metrics["cost/harm/mean"] == pytest.approx(cost)
        assert state.multipliers["harm"].integral == pytest.approx(integral)


def test_a_batch_without_prompts_of_the_slice_leaves_the_multiplier():
    experience = make_experience(slices=("b", "b"), helpful=[0.0, 0.0], harm=[0.8, 0.8])
    config = make_config(**LIMITED, limit_slices={"harm": "a"})
    state = ppo_state.State(0, 0.5, {"harm": Multiplier(2.0, 2.5)})
    moved(config, experience, state)
    assert state.multipliers["harm"] == Multiplier(2.0, 2.5)


def test_c19_ratio_1_and_kl_0_at_step_0(road):
    config, actors, experience, state = road(temperature=0.7, lora_rank=0)
    assert experience.kl.abs().max() < 1e-5
    advantages, returns, _ = shaped(config, experience, state)
    rows = list(range(len(experience.groups)))
    _, metrics = micro(config, actors, experience, advantages, returns, rows)
    assert float(metrics["policy/ratio"]) == pytest.approx(1.0, abs=1e-5)
    assert float(metrics["policy/kl_old_new"]) == pytest.approx(0.0, abs=1e-6)
    assert float(metrics["policy/clip_fraction"]) == 0.0


def test_c20_ratio_1_at_step_0_in_bf16(road):
    """C20: the ratio is of log-probs from the same arithmetic, and their softmax is f32."""
    config, actors, experience, state = road(precision="bf16", sampler_gap=1e-9)
    advantages, returns, _ = shaped(config, experience, state)
    rows = list(range(len(experience.groups)))
    packing = pack(experience.groups)
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, _ = logprobs_and_entropy(actors.policy, packing, hidden_states(actors.policy, packing))
    assert logprobs.dtype == torch.float32
    _, metrics = micro(config, actors, experience, advantages, returns, rows)
    assert float(metrics["policy/ratio"]) == pytest.approx(1.0, abs=1e-5)
    assert float(metrics["policy/kl_old_new"]) < 1e-6
    assert experience.kl.abs().max() < 1e-4


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_sampler_computes_in_the_trainers_precision(road, precision, monkeypatch):
    lowered, draw = [], engines.sample
    monkeypatch.setattr(
        engines, "sample", lambda *a, **k: lowered.append(torch.is_autocast_enabled("cpu")) or draw(*a, **k)
    )
    road(precision=precision)
    assert lowered == [precision == "bf16"]


# both compute in one precision; in bf16 their products are rounded at other places
@pytest.mark.parametrize(
    ("low", "same", "gap"),
    [pytest.param("f32", 1e-4, ppo_rollouts.GAP["f32"], marks=pytest.mark.slow), ("bf16", 1e-3, 1e-2)],
)
def test_under_the_bound_the_sampler_stands_for_the_trainer(road, low, same, gap):
    """The first step's policy loss is the same up to rounding, and what is logged is the mean gap of some replies."""
    losses, logged = [], []
    for bound in (1e-9, 1.0):
        config, actors, experience, state = road(precision=low, sampler_gap=bound, batch_size=18, samples=2)
        sampled = torch.tensor([p for r in experience.rollouts for p in r.logprobs])
        assert torch.equal(experience.logprobs[experience.mask], sampled) == (bound == 1.0)
        advantages, returns, _ = shaped(config, experience, state)
        rows = list(range(len(experience.groups)))
        losses.append(float(micro(config, actors, experience, advantages, returns, rows)[1]["loss/policy"]))
        logged.append(ppo_log.rollout_metrics(actors, experience, state)["policy/sampler_gap"])
    assert losses[0] == pytest.approx(losses[1], abs=same)
    assert logged[0] == logged[1] and 0 < logged[0] < gap
    picked = [i for group in range(0, 18, 16) for i in (2 * group, 2 * group + 1)]
    packing = pack([experience.groups[i] for i in range(0, 18, 16)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low == "bf16"):
        trained = token_logprobs(actors.policy, packing)
    drawn = torch.tensor([p for i in picked for p in experience.rollouts[i].logprobs])
    assert logged[0] == pytest.approx(float((drawn - trained).abs().mean()), rel=1e-3, abs=1e-7)


def test_a_sampler_with_other_weights_is_noticed(road, monkeypatch):
    """Log-probs that the policy would not give: the gap is theirs, and the trainer's stand in the ratio."""
    drawn = sampler.sample

    def other(*arguments, **asked):
        return [replace(r, logprobs=tuple(p - 0.25 for p in r.logprobs)) for r in drawn(*arguments, **asked)]

    monkeypatch.setattr(engines, "sample", other)
    config, actors, experience, state = road()
    assert experience.sampler_gap == pytest.approx(0.25, abs=1e-4)
    advantages, returns, _ = shaped(config, experience, state)
    _, metrics = micro(config, actors, experience, advantages, returns, list(range(len(experience.groups))))
    assert float(metrics["policy/ratio"]) == pytest.approx(1.0, abs=1e-5)


def test_c4_the_critic_reads_the_positions_that_the_policy_acts_from(road):
    """C4: value t is the one before token t, in collecting and in learning; with nothing learned yet they are one."""
    config, actors, experience, state = road("limited", batch_size=12)
    critic = actors.critics.models["harm"]
    for i, r in enumerate(experience.rollouts):
        with torch.no_grad():
            hidden = critic.model(input_ids=torch.tensor([[*r.prompt_ids, *r.ids]])).last_hidden_state[0]
            before = critic.score(hidden[len(r.prompt_ids) - 1 : -1])[:, 0]
        assert torch.allclose(experience.values["harm"][i, : len(r.ids)], before, atol=1e-5)
    advantages, returns, _ = shaped(config, experience, state)
    rows = list(range(12))
    _, metrics = micro(config, actors, experience, advantages, returns, rows)
    for name in ("reward", "harm"):
        squared = (experience.values[name] - returns[name])[experience.mask] ** 2
        assert float(metrics[f"loss/value/{name}"]) == pytest.approx(0.5 * float(squared.mean()), rel=1e-4)


def test_b11_values_do_not_depend_on_the_temperature_of_sampling(road):
    config, actors, experience, state = road()
    advantages, returns, _ = shaped(config, experience, state)
    rows = list(range(len(experience.groups)))
    seen = []
    for temperature in (1.0, 0.5):
        warm = config.model_copy(update={"temperature": temperature})
        seen.append(micro(warm, actors, experience, advantages, returns, rows)[1])
    assert torch.equal(seen[0]["loss/value/reward"], seen[1]["loss/value/reward"])
    assert not torch.allclose(seen[0]["policy/ratio"], seen[1]["policy/ratio"], atol=1e-2)


def test_b6_a_weight_or_a_score_of_0_is_a_number():
    """B6: a reward that weighs 0 weighs nothing, a score of 0 is the mean's third part, a limit of 0 is a limit."""
    config = make_config(rewards={"helpful": "r", "other": "s"}, reward_weights={"other": 0.0}, **LIMITED)
    experience = make_experience(
        lengths=(2, 2, 2),
        finish=("stop",) * 3,
        slices=("a",) * 3,
        helpful=[3.0, 0.0, 0.0],
        other=[7.0, 7.0, 7.0],
        harm=[0.5, 0.0, 0.0],
    )
    assert complete(config, experience).reward.tolist() == [3.0, 0.0, 0.0]
    state = ppo_state.State(0, 0.5, {"harm": Multiplier(1.0, 1.0)})
    assert moved(config, experience, state)["cost/harm/mean"] == pytest.approx(0.5 / 3)
    assert state.multipliers["harm"].value > 1.0


def test_b7_a_scorer_that_fails_ends_the_run(commands, tmp_path, capsys):
    """B7: weights that are not finite give scores that are none; they never become the reward 0."""
    shutil.copytree(commands.snapshots / "reward", tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights["score.weight"][:] = float("nan")
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    changes = {"rewards.helpful": tmp_path / "broken", "critic": "shared"}  # a critic of its own would be broken too
    assert commands.run("ppo", tmp_path / "run", **changes) == 1
    assert "non-finite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "snapshot").exists()


def test_c10_c11_logged_kl_is_the_sum_over_each_reply_and_recomputes_offline(commands, road):
    """C10, C11: unclamped, per sequence; policy and reference evaluated again from the files give the same."""
    config, actors, experience, state = road(reference=commands.snapshots / "other")
    shaped(config, experience, state)  # which charges for the KL and leaves it as it is
    metrics = ppo_log.rollout_metrics(actors, experience, state)
    policy = load_policy(str(commands.snapshots / "policy"))
    reference = load_policy(str(commands.snapshots / "other"))
    total = 0.0
    with torch.no_grad():
        for r in experience.rollouts:
            packing = pack([reply_group(r.prompt_ids, r.ids)])
            total += float((token_logprobs(policy, packing) - token_logprobs(reference, packing)).sum())
    assert metrics["objective/kl"] == pytest.approx(total / len(experience.rollouts), rel=1e-4)
    assert metrics["objective/kl"] > 1.0  # far apart: nothing held it down
    huge = replace(experience, kl=torch.where(experience.mask, torch.tensor(50.0), torch.tensor(0.0)))
    mean_length = float(experience.mask.sum(1).float().mean())
    assert ppo_log.rollout_metrics(actors, huge, state)["objective/kl"] == pytest.approx(50.0 * mean_length)


def test_c12_the_controller_is_fed_nats_per_sequence_and_the_number_of_sequences(renderer):
    experience = make_experience(helpful=[0.0, 0.0])
    config = make_config(kl_target=0.4, kl_horizon=100.0)
    state = ppo_state.State(0, 0.5, {})
    scorers = SimpleNamespace(renderer=renderer, rewards={}, costs={}, scorers={})
    metrics = ppo_log.rollout_metrics(scorers, complete(config, experience), state)
    assert metrics["objective/kl"] == pytest.approx((0.6 + 0.3) / 2)
    assert metrics["kl_coefficient"] == 0.5  # what this batch was trained with
    ppo_state.move_kl_coefficient(config, experience, state, config.steps)
    assert state.kl_coefficient == pytest.approx(0.5 * (1 + (0.45 / 0.4 - 1) * 2 / 100))


def test_c13_c14_number_and_order_of_the_updates(road, monkeypatch):
    """C13, C14: epochs × mini-batches steps; each epoch sees every rollout once, in a fresh order."""
    config, actors, experience, state = road(batch_size=7, mini_batch_size=3, ppo_epochs=3, micro_tokens=30)
    advantages, returns, _ = shaped(config, experience, state)
    optimizers = ppo.build_optimizers(config, actors)
    events = []
    plain = ppo_update.micro_loss

    def logged(*arguments):
        events.append(list(arguments[5]))  # the prompts of a micro-batch
        return plain(*arguments)

    monkeypatch.setattr(ppo_update, "micro_loss", logged)
    for name, optimizer in optimizers.items():
        step = optimizer.step
        monkeypatch.setattr(
            optimizer, "step", lambda *a, name=name, step=step, **k: (events.append(name), step(*a, **k))[1]
        )
    targets = ppo_update.Targets(advantages, returns, config.kl_coefficient, 0)
    metrics = ppo_update.improve(config, ONE, actors, optimizers, experience, targets)
    batches, current = [], []
    for event in events:
        if isinstance(event, list):
            current += event
        elif event == "policy":
            batches.append(current)
            current = []
    assert [len(batch) for batch in batches] == [3, 3, 1] * 3
    epochs = [[r for batch in batches[i : i + 3] for r in batch] for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert metrics["policy/updates"] == 9
    assert sum(event == "critics" for event in events) == 9


def test_c5_poison_beyond_the_replies_reaches_neither_loss_nor_gradient(road):
    config, actors, experience, state = road("limited", batch_size=12)
    mask = experience.mask
    assert not mask.all()
    clean = results(config, actors, experience, state)

    def poison(matrix):
        return torch.where(mask, matrix, torch.tensor(float("nan")))

    poisoned = replace(
        experience,
        logprobs=poison(experience.logprobs),
        kl=poison(experience.kl),
        values={n: poison(v) for n, v in experience.values.items()},
    )
    other = results(config, actors, poisoned, state)
    assert clean[0] == other[0]
    assert all(torch.equal(a, b) for a, b in zip(clean[1], other[1], strict=True))


def results(config, actors, experience, state):
    advantages, returns, logged = shaped(config, experience, state)
    rows = list(range(len(experience.groups)))
    loss, metrics = micro(config, actors, experience, advantages, returns, rows)
    for module in (actors.policy, actors.critics):
        module.zero_grad()
    loss.backward()
    gradients = [p.grad.clone() for m in (actors.policy, actors.critics) for p in m.parameters() if p.grad is not None]
    return {**{k: float(v) for k, v in metrics.items()}, **logged}, gradients


@pytest.mark.parametrize(
    "budget", [pytest.param(1, marks=pytest.mark.slow), 60, pytest.param(200, marks=pytest.mark.slow)]
)
def test_c15_ppo_gradients_do_not_depend_on_the_cut(road, budget):
    from accord.engine.packing import cut_by_tokens

    config, actors, experience, state = road("limited", batch_size=12)
    advantages, returns, _ = shaped(config, experience, state)
    found = []
    for size in (100_000, budget):
        for module in (actors.policy, actors.critics):
            module.zero_grad()
        for rows in cut_by_tokens(list(range(12)), lambda i: experience.groups[i].tokens, size):
            loss, _ = micro(config, actors, experience, advantages, returns, rows, range(12))
            loss.backward()
        found.append([p.grad.clone() for m in (actors.policy, actors.critics) for p in m.parameters()])
    assert all(torch.allclose(a, b, atol=2e-6) for a, b in zip(*found, strict=True))


def test_c17_metrics_are_means_over_tokens(road):
    """Entropy and length against a plain loop over the replies."""
    config, actors, experience, state = road()
    advantages, returns, _ = shaped(config, experience, state)
    _, metrics = micro(config, actors, experience, advantages, returns, list(range(8)))
    total, tokens = 0.0, 0
    with torch.no_grad():
        for r in experience.rollouts:
            logits = actors.policy(input_ids=torch.tensor([[*r.prompt_ids, *r.ids]])).logits[0]
            logs = torch.log_softmax(logits[len(r.prompt_ids) - 1 : -1], -1)
            total -= float((logs.exp() * logs).sum())
            tokens += len(r.ids)
    assert float(metrics["objective/entropy"]) == pytest.approx(total / tokens, rel=1e-4)
    recorded = ppo_log.rollout_metrics(actors, experience, state)
    assert recorded["completions/mean_length"] == pytest.approx(tokens / 8)
    assert recorded["completions/clipped_ratio"] == sum(r.finish == "length" for r in experience.rollouts) / 8


@pytest.mark.parametrize("whiten", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_a_frozen_multiplier_of_0_is_ppo_without_limits_bit_for_bit(commands, tmp_path, whiten):
    """λ = 0 and the cost critic still trained: the policy's weights are those of plain PPO."""
    import safetensors.torch

    shared = {"data": None, "whiten": whiten, "steps": 2}
    named = {"data.plain": commands.files / "prompts.jsonl", "data.harmful": commands.files / "harmful.jsonl"}
    assert commands.run("ppo", tmp_path / "plain", **shared, **named) == 0
    limits = {"costs.harm": commands.snapshots / "cost", "limits.harm": 0.0, "multiplier_init": 0.0}
    assert commands.run("ppo", tmp_path / "limited", **shared, **named, **limits) == 0
    a, b = (safetensors.torch.load_file(tmp_path / n / "snapshot" / "model.safetensors") for n in ("plain", "limited"))
    start = safetensors.torch.load_file(commands.snapshots / "policy" / "model.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], start[k]) for k in a)
    limited = rows_of(tmp_path / "limited")
    assert all(row["lagrange/harm"] == 0.0 for row in limited)
    losses = [row["loss/value/harm"] for row in limited]
    assert all(math.isfinite(x) for x in losses) and len(set(losses)) == len(losses)


def test_d2_the_path_of_the_multiplier_does_not_depend_on_micro_batches_or_epochs(commands, tmp_path):
    """One step: λ moves before the policy, so neither how the batch is cut nor how often it is used matters."""
    seen = []
    for i, changes in enumerate(({}, {"micro_tokens": 30, "mini_batch_size": 2}, {"ppo_epochs": 4})):
        assert commands.run("limited", tmp_path / str(i), steps=1, batch_size=4, **changes) == 0
        seen.append(rows_of(tmp_path / str(i))[0]["lagrange/harm"])
    assert seen == pytest.approx([seen[0]] * 3, rel=1e-6)


def test_d6_a_violated_limit_raises_the_multiplier_through_the_command(commands, tmp_path):
    for limit, compare in ((-50.0, float.__gt__), (50.0, float.__lt__)):
        out = tmp_path / str(limit)
        gentle = {"multiplier_rate": 0.001, "multiplier_gain": 0.001}
        assert commands.run("limited", out, steps=2, batch_size=4, **{"limits.harm": limit}, **gentle) == 0
        rows = rows_of(out)
        assert compare(rows[0]["lagrange/harm"], 2.0) and compare(rows[1]["lagrange/harm"], rows[0]["lagrange/harm"])


def test_d7_a_policy_step_under_a_large_multiplier_lowers_the_cost(road):
    """D7: cost has the sign it is documented with; its advantage is subtracted."""
    values = {name: torch.zeros(2, 3) for name in ("reward", "harm")}
    experience = make_experience(helpful=[0.0, 0.0], harm=[2.0, -2.0], values=values)
    state = ppo_state.State(0, 0.0, {"harm": Multiplier(9.0, 9.0)})
    advantages, _, _ = shaped(make_config(**LIMITED, kl_coefficient=0.0), experience, state)
    assert (advantages[0] < 0).all() and (advantages[1][:2] > 0).all()


def test_c22_fewer_prompts_than_a_batch_still_train(commands, tmp_path):
    assert commands.run("ppo", tmp_path / "run", batch_size=500, mini_batch_size=500, steps=1, max_rows=5) == 0
    (row,) = rows_of(tmp_path / "run")
    assert row["policy/updates"] == 2
    assert commands.run("ppo", tmp_path / "small", batch_size=4, mini_batch_size=100, steps=1) == 0


def test_c23_one_sample_and_one_prompt_train_without_nan(commands, tmp_path):
    assert commands.run("ppo", tmp_path / "run", batch_size=1, mini_batch_size=1, samples=1, steps=2) == 0
    for row in rows_of(tmp_path / "run"):
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))


def test_c25_every_iteration_and_every_prompt_draws_its_own(commands, tmp_path):
    """C25: the same prompts again in a later iteration, with a policy that did not move, give other replies."""
    line = {"batch_size": 4, "samples": 2, "steps": 2, "learning_rate": 1e-12, "max_rows": 4, "advantages": "rloo"}
    assert commands.run("ppo", tmp_path / "run", **line) == 0
    samples = [json.loads(x) for x in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    first, second = ([s["reply"] for s in samples if s["step"] == n] for n in (1, 2))
    assert first != second
    assert commands.run("ppo", tmp_path / "again", **line) == 0
    again = [json.loads(x) for x in (tmp_path / "again" / "samples.jsonl").read_text().splitlines()]
    assert [s["reply"] for s in again] == [s["reply"] for s in samples]
    assert commands.run("ppo", tmp_path / "other", **line, seed=1) == 0
    other = [json.loads(x) for x in (tmp_path / "other" / "samples.jsonl").read_text().splitlines()]
    assert [s["reply"] for s in other] != [s["reply"] for s in samples]


def test_c7_ppo_on_kl_alone_brings_the_policy_to_its_reference(commands, tmp_path):
    """C7 through the command: a reward that weighs nothing leaves KL, and KL falls."""
    changes = {"reference": commands.snapshots / "other", "reward_weights.helpful": 0.0, "kl_coefficient": 0.2}
    changes |= {"steps": 8, "batch_size": 24, "mini_batch_size": 12, "learning_rate": 3e-3, "warmup": 0.0}
    assert commands.run("ppo", tmp_path / "run", **changes) == 0
    kl = [row["objective/kl"] for row in rows_of(tmp_path / "run")]
    assert sum(kl[-3:]) < 0.8 * sum(kl[:3])


@pytest.mark.slow
def test_the_reward_rises_when_nothing_holds_it(commands, tmp_path):
    changes = {"kl_coefficient": 0.0, "steps": 12, "batch_size": 24, "mini_batch_size": 12}
    changes |= {"learning_rate": 3e-3, "warmup": 0.0}
    assert commands.run("ppo", tmp_path / "run", **changes) == 0
    reward = [row["reward/helpful"] for row in rows_of(tmp_path / "run")]
    assert sum(reward[-3:]) > sum(reward[:3])
