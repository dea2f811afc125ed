"""Our side's programs on toy workloads: the package's own loops, as the benchmarks call them; nothing is timed."""

import pytest

from benchmarks import cases, gpu
from benchmarks.cases import Plan
from benchmarks.clock import steps
from benchmarks.harness import HERE, OURS, TRL, TRL19
from benchmarks.reward import of_completions, of_conversations, percent_even
from benchmarks.workloads import EOS, FIRST, Workload, fixed_replies, hh_items, make_item, words

PLAN = Plan(rounds=1, steps=2, size="toy")


def test_workloads_have_the_recorded_lengths_and_end_with_eos():
    items = hh_items(200, 512, replies=4)
    assert len(items) == 200
    assert all(len(item["replies"]) == 4 and all(reply[-1] == EOS for reply in item["replies"]) for item in items)
    texts = [(item["prompt"], *item["replies"][:2]) for item in items[:192]]
    means = [sum(len(row[k]) for row in texts) / 192 for k in range(3)]
    assert [round(m) for m in means] == [126, 59, 48]
    assert items == hh_items(200, 512, replies=4)
    tokens = [t for item in items for reply in item["replies"] for t in reply[:-1]]
    assert min(tokens) > EOS


def test_given_replies_have_one_length_and_no_end():
    items = fixed_replies(3, 64, replies=4, length=5)
    assert [item["prompt"] for item in items] == [item["prompt"] for item in hh_items(3, 64)]
    assert all(len(item["replies"]) == 4 for item in items)
    assert all(len(reply) == 5 and min(reply) >= FIRST for item in items for reply in item["replies"])


def test_the_reward_counts_even_words_and_is_the_same_for_both_sides():
    text = words([4, 5, 6, 8, EOS, 0])
    assert text == "w4 w5 w6 w8 <eos> <pad>" and percent_even(text) == 75.0 and percent_even("") == 0.0
    said = [{"role": "user", "content": "w3"}, {"role": "assistant", "content": text}]
    assert of_conversations([said]) == of_completions([text], prompts=["w3"]) == [75.0]


def test_untimed_steps_are_the_first():
    assert steps([0.0, 5.0, 6.0, 8.0], 1) == [1.0, 2.0]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A workload of few short texts, whose replies are as long as each other."""
    import numpy as np

    folder = tmp_path_factory.mktemp("toy")
    generator = np.random.default_rng(0)
    items = [make_item(generator, 64, 5 + i, [4, 4]) for i in range(8)]
    Workload(items, 64, "toy").write(folder)
    return folder


def run(task, toy, **options):
    """The task in this process; the benchmarks give each a process of its own."""
    import json

    from benchmarks.ours.__main__ import TASKS

    base = {"steps": 5, "warm": 1, "batch_size": 2, "learning_rate": 1e-3, "samples": 1, "epochs": 2}
    base |= {"max_new_tokens": 4, "greedy_tokens": 3, "repeats": 1, "stop_ids": [2], "method": "gae"}
    (toy / "options.json").write_text(json.dumps({**base, **options}))
    return TASKS[task](toy)


def test_training_gives_what_equality_and_measures_read(toy):
    for task, options in (("sft", {}), ("preference", {}), ("dpo", {"cached": True})):
        found = run(task, toy, **options)
        assert len(found["losses"]) == len(found["grad_norms"]) == 5 and len(found["seconds"]) == 4
    assert found["extra_mib"] >= 0


def test_generation_and_agreement_run(toy):
    found = run("generation", toy, rates=True)
    assert found["tokens"] <= 4 and len(found["greedy"]) == 8
    assert gpu.share_of_bytes(found, {}) > 0
    assert run("agreement", toy)["f32"]["mean"] < 1e-5


def test_no_reply_ends_early_so_every_iteration_draws_as_many_tokens(toy):
    found = run("group", toy, method="rloo", samples=2, epochs=1, steps=3, max_new_tokens=48)
    assert found["drawn"] == 3 * 2 * 2 * 48 and found["updates"] == 3 and len(found["seconds"]) == 2


def test_given_replies_are_learned_from_in_the_workloads_order(toy):
    """Advantages by hand from the even words of each reply; the second iteration starts from another policy."""
    found = run("given", toy, method="rloo", samples=2, epochs=1)
    from benchmarks.ours.setting import items_of

    for item, rows in zip(items_of(toy)[:2], (found["advantages"][0][:2], found["advantages"][0][2:]), strict=True):
        first, second = (percent_even(words(reply)) for reply in item["replies"])
        assert [row[0] for row in rows] == pytest.approx([first - second, second - first], abs=1e-3)
    assert abs(found["kl"][0]) < 1e-6 < abs(found["kl"][1])


def test_an_iteration_is_timed_beside_its_stages(toy):
    found = run("stages", toy, limited=True, steps=2, rates=True)
    names = {"sampling", "score of helpful", "score of harmless", "reference", "critics", "update"}
    assert set(found["parts"][0]) == names and len(found["whole"]) == 1
    assert found["replies"] == 2 and found["reply_tokens"] == 8
    assert found["scoring_passes"] == 5 and found["training_passes"] == 3
    assert 0.3 < cases.over_its_stages(found, {}) < 4
    assert set(gpu.over_bound(found)) == {"sampling", "scoring", "update", "iteration"}


def test_bounds_are_counted_by_hand():
    work = {"parameters": 10, "prompt_tokens": 6, "reply_tokens": 8, "replies": 2, "cache_bytes": 3, "epochs": 2}
    work |= {"scoring_passes": 3, "training_passes": 2, "gemm": 100.0, "copy": 50.0}
    bounds = gpu.lower_bounds(work)
    # a step reads 20 bytes of weights and, of 2 rows, 5 tokens of 3 bytes; a reply has 4 steps
    assert bounds["sampling"] == pytest.approx(2 * 10 * 6 / 60 + 4 * (20 + 2 * 5 * 3) / 35)
    assert bounds["scoring"] == pytest.approx(3 * 2 * 10 * 14 / 55)
    assert bounds["update"] == pytest.approx(2 * 2 * 6 * 10 * 14 / 45)
    assert bounds["iteration"] == sum(bounds[name] for name in ("sampling", "scoring", "update"))


def test_the_share_of_the_peak_counts_what_carries_loss_alone():
    work = {"trunk_parameters": 1e9, "num_tokens": 1000, "head_parameters": 1e8, "num_rows": 500, "seconds": [0.01]}
    assert gpu.share_of_peak(work, {}) == pytest.approx(6 * (1e12 + 0.5e11) / 0.01 / gpu.PEAK)


def test_every_benchmark_has_cases_with_the_goals_of_the_issue():
    from benchmarks.__main__ import BENCHMARKS

    goals = {name: [str(m.goal) for c in b.cases(PLAN) for m in c.measures] for name, b in BENCHMARKS.items()}
    assert goals["sft"] == ["≥ 3x", "≥ 3.5x", "≥ 2x"]
    assert goals["preference"] == ["≥ 2.5x"] and goals["ranking"] == ["≥ 4x"]
    assert goals["dpo"] == ["≥ 5x", "≥ 6x", "≥ 6x", "≥ 1x", "≥ 1.5x"]
    assert goals["dpo-vocab"] == ["≥ 8x", "≤ 0.35x"] and goals["generation"] == ["≥ 2x", "≥ 2x", "≥ 5x"]
    assert goals["group"] == ["≥ 4x", "≥ 4x"] and goals["ppo"] == ["≤ 1.25x", "≤ 1.25x", "≥ 3x"]
    assert goals["startup"] == ["≤ 0.3 s", "≤ 8 s"] and goals["agreement"] == ["≤ 1e-05 nats", "≤ 0.002 nats"]
    assert goals["feedback"] == ["≥ 300 a second", "≤ 150 ms", "≤ 50 ms", "≤ 50 ms"] * 2 + ["≤ 20 s"] * 2
    on_gpus = [case.name[:2] for case in BENCHMARKS["gpu"].cases(PLAN)]
    assert on_gpus[0] == "pa" and set(on_gpus[1:]) == {f"G{i}" for i in range(1, 8)}
    assert all((HERE / side.program).is_file() for side in (OURS, TRL, TRL19)) and OURS.python
