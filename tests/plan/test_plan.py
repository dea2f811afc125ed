"""The plan against hand values, against what autograd keeps, and against a cluster whose events are drawn."""

import dataclasses
import json
import math
import shlex

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from accord.cli import main
from accord.engine.forward.attention import IMPLEMENTATION
from accord.engine.forward.causal import token_logprobs
from accord.engine.forward.recompute import recompute_layers
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput
from accord.parsing import parse
from accord.stages.plan import machines
from accord.stages.plan.choose import PlanInput, breaks_first, choose, consider, fewest_devices
from accord.stages.plan.cluster import ring_seconds, simulate
from accord.stages.plan.config import Forecast
from accord.stages.plan.cost import REACHED, Way, drawing_bytes, failure_factor, message_seconds, slowest_of
from accord.stages.plan.launch import arguments, ray, slurm, torchrun
from accord.stages.plan.machines import GIB, TABLE, Machine, find_machine, make_machine, read_table
from accord.stages.plan.shapes import SHAPES, find_lengths, find_shape
from accord.stages.plan.work import Lengths, work_of
from accord.training.footprint import PEAK, DecoderShape, kept_bytes, state_bytes
from accord.training.memory import Need, kept_for_backward, plan_memory

# a model and a machine whose numbers can be worked out on paper
SMALL = DecoderShape(width=10, inner=20, layers=2, heads=2, kv_heads=1, head_size=5, vocabulary=100)
LINKS = {"near": 1e6, "far": 1e5, "latency": 0.0, "step": 0.0, "straggle": 0.0}
PAPER = Machine("paper", "cuda", 4, 1.0, 1e9, 2e9, 1e9, "by hand", **LINKS)
TEXTS = Lengths(prompt=6, reply=4, longest=10, rows=100)
CHATS = Lengths(200, 150, 1000, 160_000)


def asked(machine=PAPER, shape=SMALL, lengths=TEXTS, **knobs):
    knobs = {"model": "8b", "precision": "f32", "batch_size": 8, **knobs}
    return PlanInput(Forecast(**knobs), shape, lengths, machine)


def test_parameters_are_those_of_published_models():
    assert SHAPES["8b"].numbers == 8_030_261_248  # Llama-3.1-8B
    assert SHAPES["70b"].numbers == 70_553_706_496
    assert SHAPES["1.2b"].numbers == 1_235_814_400  # Llama-3.2-1B


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("recompute", [False, True])
def test_what_backward_keeps_is_what_autograd_keeps(kv_heads, recompute):
    """The formula of a plan and the count that training itself makes are one number, to a tenth."""
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, num_key_value_heads=kv_heads, vocab_size=50, attn_implementation=IMPLEMENTATION)
    model = AutoModelForCausalLM.from_config(config).train()
    shape = DecoderShape(64, 160, 3, 4, kv_heads, 16, 50)
    assert shape.numbers == sum(p.numel() for p in model.parameters())
    item = reply_group(range(1, 48), (3,))  # one row for the head

    def loss(items):
        return -token_logprobs(model, pack(items)).sum()

    loss([item])
    recompute_layers([model], recompute)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    one, two = (kept_for_backward(loss, [item] * count, weights) for count in (1, 2))
    # recomputed, autograd keeps the inputs; the one layer that is there at a time is the plan's own
    expected = kept_bytes(shape) if not recompute else 3 * 4 * 64
    # the last layer computes queries and MLP at the head's rows alone
    assert (two - one) / item.tokens == pytest.approx(expected * (1 if recompute else 0.78), rel=0.12)


def test_seconds_and_bytes_of_a_step_by_hand():
    """8 conversations of 10 tokens: 2·N·T for the trunk, the head on 32 rows, attention over what a token sees."""
    work = work_of("sft", asked().config, SMALL, TEXTS)
    layer = 10 * (2 * 10 + 2 * 5 + 3 * 20 + 2)
    assert SMALL.layer_numbers == layer == 920
    pairs = 8 * (36 / 2 + (6 * 4 + 16 / 2))
    operations = 2 * 2 * layer * 80 + 2 * 10 * 100 * 32 + 4 * 2 * 10 * pairs
    assert work.passes[0].operations == operations
    found = consider("sft", asked(), Way(1, precision="f32"))
    assert found.time.parts == {"learn": pytest.approx(3 * operations / (0.45 * 1e9)), "messages": 0.0}
    assert found.time.steps == round(100 / 8)
    numbers = 2 * layer + 10 * 201
    assert found.memory.parts["weights"] == 4 * numbers
    assert found.memory.parts["gradients and optimizer"] == 12 * numbers == state_bytes(numbers)
    kept = 2 * 4 * (2 * 10 + 2 * 10 + 3 * 10 + 2 * 5 + 4 * 20)
    assert found.memory.per_token == PEAK * kept
    halves = consider("sft", asked(), Way(2, sharded=True, precision="f32"))
    assert halves.memory.parts["weights"] == 4 * numbers / 2
    assert halves.memory.parts["gradients and optimizer"] == 12 * numbers / 2


def test_what_nothing_trains_takes_two_bytes_a_number_in_bf16():
    """Matrices of layers: of the base under adapters, and of frozen roles."""
    trunk, numbers = SMALL.trunk_numbers, SMALL.numbers
    adapters = SMALL.adapter_numbers(4)
    held = 4 * (numbers - trunk) + 2 * trunk
    low, one = Way(1, precision="bf16"), Way(1, precision="bf16", lora_rank=4)
    for stage in ("sft", "preference", "dpo"):
        adapted = consider(stage, asked(), one).memory.parts
        assert adapted["weights"] == held + 4 * adapters and adapted["weights cast"] == 2 * (numbers - trunk + adapters)
    whole = consider("ppo", asked(critic="shared", cost_models=1), low).memory.parts  # two scorers and a reference
    assert whole["weights"] == 4 * numbers + 3 * held and whole["weights cast"] == 2 * numbers
    roles = consider("ppo", asked(critic="shared", cost_models=1), one).memory.parts  # the reference is the policy
    assert roles["weights"] == held + 4 * 4 * adapters


@pytest.mark.parametrize(("shape", "recompute"), [("0.6b", True), ("little", False)])
def test_a_micro_batch_is_what_training_would_choose(shape, recompute):
    """On a CPU a large model's layers run again, a small one's micro-batches stop where every core is busy."""
    laptop = find_machine("laptop")
    sizes = {"0.6b": SHAPES["0.6b"], "little": DecoderShape(576, 1536, 30, 9, 3, 64, 49_152, tied=True)}
    planned = asked(laptop, sizes[shape], CHATS, batch_size=1024)
    chosen = choose("sft", planned, 1)
    assert chosen.fits and chosen.way.recompute == recompute

    def need(again):
        memory = consider("sft", planned, Way(1, precision="f32", recompute=again)).memory
        aside = memory.parts["weights"] + memory.parts["libraries"]
        return Need(sum(memory.parts.values()) - aside, memory.per_token), laptop.bytes - aside

    (plain, free), (again, _) = need(False), need(True)
    settled = plan_memory(lambda: plain, lambda: again, free, longest=1000, device="cpu")
    assert (settled.micro_tokens, settled.recompute) == (chosen.memory.micro_tokens, recompute)
    few = choose("sft", asked(laptop, sizes["little"], TEXTS, batch_size=8), 1)
    assert few.memory.micro_tokens == 8 * 10  # a batch has no more


def test_moments_of_8_bits_by_hand():
    eight = asked(optimizer_bits=8)
    found = choose("sft", eight, 4)
    assert not found.way.sharded  # which training refuses
    assert found.memory.parts["gradients and optimizer"] == SMALL.numbers * (4 + 2 * (1 + 4 / 256))
    assert arguments(found, eight)[-4:-2] == ["--optimizer_bits", "8"]
    with pytest.raises(ValueError, match="--optimizer_bits 16 is neither"):
        asked(optimizer_bits=16)


def test_a_base_of_4_bits_by_hand():
    """Half a byte a number and four bytes for every 64; while replies are drawn, its matrices in the products' type."""
    four = asked(lora_rank=4, base_bits=4, critic="shared")
    found = choose("ppo", four, 4)
    numbers, trunk, adapters = SMALL.numbers, SMALL.trunk_numbers, SMALL.adapter_numbers(4)
    assert not found.way.sharded  # which training refuses
    held = 4 * (numbers - trunk) + trunk * (0.5 + 4 / 64)
    assert found.memory.parts["weights"] == held + 4 * 2 * adapters  # of policy and scorer
    assert arguments(found, four)[arguments(found, four).index("--base_bits") + 1] == "4"
    large = DecoderShape(4096, 14336, 32, 32, 8, 128, 128_256)
    low = dataclasses.replace(found.way, precision="bf16")
    copies = [drawing_bytes(found.work.drawing, large, dataclasses.replace(low, base_bits=bits)) for bits in (4, 0)]
    assert copies[0] - copies[1] == 2 * large.numbers  # in 16 bits they are read where they are
    with pytest.raises(ValueError, match="--base_bits 8 is not 4"):
        asked(lora_rank=4, base_bits=8)


def test_messages_by_hand_and_as_a_ring_passes_them():
    work = work_of("sft", asked().config, SMALL, TEXTS)
    found = message_seconds(work, SMALL, Way(4, precision="f32"), PAPER, 1.0)
    assert found == pytest.approx(2 * 4 * SMALL.numbers * 3 / 4 / 1e6)
    for ranks in (2, 4, 8, 16, 64, 1000):  # beyond a node the slow link bounds the ring
        machine = dataclasses.replace(PAPER, devices=ranks, latency=1e-5)
        ours = message_seconds(work, SMALL, Way(ranks, precision="f32"), machine, 1.0)
        assert ours == pytest.approx(ring_seconds(4 * SMALL.numbers, ranks, machine))


def test_decoding_is_bound_by_the_bytes_of_weights_and_cache():
    found = consider("ppo", asked(batch_size=4, samples=2, iterations=3), Way(1, precision="f32"))
    read = 4 * SMALL.numbers + 8 * (6 + 2) * (2 * 2 * 5 * 4)
    computed = 2 * 8 * SMALL.numbers / (REACHED[PAPER.device]["forward"] * 1e9)
    first = 2 * SMALL.numbers * 24 / (REACHED[PAPER.device]["prefill"] * 1e9)
    assert found.time.parts["draw replies"] == pytest.approx(first + 4 * max(read / (0.7 * 1e9), computed))
    passes = {"reference", "scores", "values", "learn", "learn values"}
    assert set(found.time.parts) == passes | {"messages", "draw replies"}
    shared = consider("ppo", asked(critic="shared", cost_models=1), Way(1, precision="f32"))
    assert shared.work.trained == 1 and shared.work.frozen == 3
    assert shared.time.parts["values"] == pytest.approx(shared.time.parts["scores"] / 2)  # of two scorers
    assert consider("ppo", asked(cost_models=1), Way(1, precision="f32")).work.trained == 3


def test_a_pass_takes_its_operations_over_what_it_reaches_of_the_rate():
    """SFT by hand: forward and twice as much backward; adapters spare the gradient of the weights."""
    few = asked(dataclasses.replace(PAPER, device="cpu"), batch_size=4)
    whole, adapted = (consider("sft", few, Way(1, precision="f32", lora_rank=rank)) for rank in (0, 4))
    operations = whole.work.passes[0].operations
    assert whole.time.parts["learn"] == pytest.approx(3 * operations / (0.65 * 1e9))
    assert adapted.time.parts["learn"] == pytest.approx(2 * operations / (0.5 * 1e9))
    many = asked(dataclasses.replace(PAPER, device="cuda"), batch_size=4)
    assert consider("sft", many, Way(1, precision="f32")).time.parts["learn"] == pytest.approx(
        3 * operations / (0.45 * 1e9)
    )


H100 = find_machine("h100")


def at(devices, stage="sft", **knobs):
    machine = dataclasses.replace(H100, devices=devices)
    return choose(stage, asked(machine, SHAPES["8b"], CHATS, precision="bf16", batch_size=1024, **knobs), devices)


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_more_devices_are_never_slower_until_messages_are_what_takes_time(stage):
    found = {devices: at(devices, stage) for devices in (8, 16, 32, 64, 128, 256, 512, 1024)}
    for few, many in zip(list(found), list(found)[1:], strict=False):
        if found[few].fits and found[many].time.parts["messages"] < 0.3 * sum(found[many].time.parts.values()):
            assert found[many].time.total < found[few].time.total
        assert found[many].memory.parts["weights"] <= found[few].memory.parts["weights"]
    assert found[1024].time.step < found[8].time.step


def test_an_8b_model_is_trained_whole_on_shards_alone_and_by_adapters_on_one_device():
    assert not at(1).fits and not at(2).fits
    assert at(8).fits and at(8).way.sharded
    assert at(1, lora_rank=8).fits and not at(1, lora_rank=8).way.sharded
    small = asked(dataclasses.replace(H100, devices=8), SHAPES["0.6b"], CHATS, precision="bf16", batch_size=1024)
    assert choose("sft", small, 8).fits and not choose("sft", small, 8).way.sharded  # shards cost messages


def test_the_fewest_devices_and_what_breaks_first():
    eight = asked(H100, SHAPES["8b"], CHATS, precision="bf16", batch_size=64)
    fewest = fewest_devices("sft", eight)
    assert not choose("sft", eight, fewest // 2).fits and choose("sft", eight, fewest).fits
    assert breaks_first("sft", eight)[0] == 1 and "memory" in breaks_first("sft", eight)[1]
    node = dataclasses.replace(eight, machine=dataclasses.replace(H100, devices=8, far=1e15, latency=0.0))
    ranks, said = breaks_first("sft", node)
    assert ranks == 128 and said.startswith("the batch")  # 64 conversations
    slow = dataclasses.replace(node, machine=dataclasses.replace(H100, devices=8, far=1e7))
    ranks, said = breaks_first("sft", slow)
    assert ranks == 16 and said.startswith("messages")  # the first that leaves a node


def test_the_simulated_cluster_does_what_the_formulas_say():
    """Without stragglers and failures to the second; with either, within their own error."""
    calm = dataclasses.replace(H100, straggle=0.0, hours=1e12)
    assert simulate(calm, 100, compute=2.0, messages=0.5, steps=40, checkpoint=10, seed=0).seconds == pytest.approx(100)
    for ranks in (8, 64, 1000):
        uneven = dataclasses.replace(H100, straggle=0.05, hours=1e12)
        seconds = simulate(uneven, ranks, compute=1.0, messages=0.0, steps=400, checkpoint=10, seed=1).seconds
        assert seconds / 400 == pytest.approx(math.exp(0.05 * slowest_of(ranks)), rel=0.01)
    frail = dataclasses.replace(H100, straggle=0.0, hours=2000.0)
    found = simulate(frail, 1000, compute=10.0, messages=0.0, steps=200_000, checkpoint=10, seed=2)
    assert found.failures > 200
    assert found.seconds / 2_000_000 == pytest.approx(failure_factor(frail, 1000, 10), rel=0.02)


def test_the_simulated_cluster_slows_down_with_ranks_failures_and_rare_checkpoints():
    def lost(ranks, **changes):
        machine = dataclasses.replace(H100, hours=5000.0, **changes)
        checkpoint = 60 if changes.get("restart") == 11.0 else 10
        done = simulate(machine, ranks, compute=10.0, messages=0.0, steps=5000, checkpoint=checkpoint, seed=3)
        return done.seconds / 50_000

    assert 1.0 <= lost(8) < lost(128) < lost(1000)
    assert lost(1000) < lost(1000, restart=11.0)


def test_the_machines_of_the_table_have_sources_and_load():
    table = read_table(TABLE)
    for name in table:
        machine = find_machine(name)
        assert machine.source and machine.bf16 >= machine.f32 > 0 and machine.memory > 0
    assert find_machine("8xh100").bf16 == find_machine("h100").bf16 and find_machine("8xh100").devices == 8
    assert find_machine("1000xh100").link == find_machine("h100").far
    assert find_machine("8xh100").link == find_machine("h100").near
    assert find_machine("laptop").bytes == 16 * GIB


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine: {device: cpu}", "mine has no devices"),
        ("mine: {like: h1000}", "like h1000"),
        ("mine: {like: h100, memroy: 3}", "unknown 'memroy' (did you mean memory?)"),
        ("mine: {like: h100, memory: none}", "memory of mine is 'none'"),
        ("mine: {like: h100, device: tpu}", "write cpu or cuda"),
        ("a: {like: h100}\nb: {like: h100}", "describes 2 machines"),
        ("- 3", "write NAME:"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['touch harmed']", "not valid YAML"),
    ],
)
def test_a_machine_that_is_not_described_is_refused_by_its_line(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(BadInput) as refused:
        find_machine("mine.yaml")
    assert said in str(refused.value) and "mine.yaml" in str(refused.value)
    assert not (tmp_path / "harmed").exists()


def test_a_machine_of_ones_own_goes_by_the_table(tmp_path):
    (tmp_path / "mine.yaml").write_text("mine: {like: h100, devices: 3, memory: 94, source: ours, far: 3e9}")
    machine = find_machine(str(tmp_path / "mine.yaml"))
    assert (machine.name, machine.devices, machine.memory, machine.far) == ("mine", 3, 94, 3e9)
    assert machine.bf16 == H100.bf16
    with pytest.raises(BadInput, match="did you mean h100"):
        find_machine("h10")
    with pytest.raises(BadInput, match="no machine with numbers"):
        make_machine("a", {"a": {"like": "b"}, "b": {"like": "c"}}, "file")


def test_the_command_prints_a_plan_and_leaves_lines_that_parse(snapshots, files, tmp_path, capsys):
    out = tmp_path / "plan"
    line = ["plan", str(snapshots / "policy"), "--data", str(files / "comparisons.jsonl"), "--machine", "8xh100"]
    assert main([*line, "--out", str(out), "--cost_models", "1", "--batch_size", "16"]) == 0
    said = capsys.readouterr().out
    assert "8xh100: 8 × 80 GiB" in said and "breaks" in said and "torchrun --standalone --nproc-per-node 8" in said
    plan = json.loads((out / "plan.json").read_text())
    assert list(plan["stages"]) == ["sft", "preference", "dpo", "ppo"]
    model = AutoModelForCausalLM.from_pretrained(snapshots / "policy")
    assert plan["parameters"] == sum(p.numel() for p in model.parameters())
    assert plan["lengths"]["rows"] == 80
    for stage, found in plan["stages"].items():
        assert found["fits"] and found["bytes"] == pytest.approx(sum(found["memory"].values()))
        words = shlex.split((out / f"{stage}.sh").read_text().splitlines()[1])
        assert words[: words.index("accord")] == ["torchrun", "--standalone", "--nproc-per-node", "8", "-m"]
        start = words.index("accord") + 1
        settings = parse(words[start], [w if w not in ("REWARD", "COST1") else "x:y" for w in words[start + 1 :]])
        assert settings.micro_tokens == found["micro_tokens"]
        assert "srun torchrun --nnodes" in (out / f"{stage}.slurm").read_text()
        compile((out / f"{stage}.ray.py").read_text(), "ray.py", "exec")
    assert main([*line, "--out", str(out)]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_the_launcher_starts_as_many_ranks_as_were_planned():
    machine = dataclasses.replace(H100, devices=64)
    planned = asked(machine, SHAPES["8b"], CHATS, precision="bf16", batch_size=1024)
    choice = choose("sft", planned, 64)
    assert "--nproc-per-node 64" in torchrun(choice, planned)
    script = slurm(choice, planned)
    assert "--nodes=8\n" in script and "--nproc-per-node 8 " in script and "--gpus-per-node=8" in script
    assert "num_workers=64, use_gpu=True" in ray(choice, planned)
    assert ("--shard" in arguments(choice, planned)) == choice.way.sharded
    alone = choose("sft", asked(), 1)
    assert torchrun(alone, asked()).startswith("accord sft --model 8b")


def test_lengths_come_from_the_words_of_the_data(files):
    found = find_lengths(Forecast(model="8b", data=str(files / "comparisons.jsonl")))
    assert found.rows == 80 and 3 <= found.prompt <= 8 and 1 <= found.reply <= 15 and found.longest >= found.prompt
    with pytest.raises(BadInput):
        find_shape("no/such-place")


@pytest.mark.parametrize(
    ("given", "knob"),
    [
        ({"data": "d", "rows": 7}, "rows"),
        ({"data": "d", "prompt_tokens": 7}, "prompt_tokens"),
        ({"max_rows": 7}, "max_rows"),
        ({"columns": {"prompt": "q"}}, "columns"),
        *(({"stages": ["sft"], knob: 7}, knob) for knob in ("samples", "ppo_epochs", "cost_models", "iterations")),
        ({"stages": ["dpo"], "critic": "shared"}, "critic"),
        ({"base_bits": 4}, "base_bits"),
    ],
)
def test_a_knob_that_nothing_reads_is_refused(given, knob):
    with pytest.raises(ValueError, match=f"--{knob} has no effect with"):
        Forecast(model="8b", **given)
    with pytest.raises(ValueError, match="--stages names none"):
        Forecast(model="8b", stages=[])


def test_this_machine_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # the first call of each is not timed; then products in f32 and in bf16, and a copy
    taken = iter([9.0, 0.3, 0.2, 9.0, 0.1, 0.4, 9.0, 0.7])
    monkeypatch.setattr(machines, "_timed", lambda work, device: next(taken))
    machines.speeds.cache_clear()
    machine = find_machine("this")
    machines.speeds.cache_clear()
    assert next(taken, None) is None
    assert (machine.f32, machine.bf16) == (2 * 1024**3 / 0.2, 2 * 1024**3 / 0.1)
    assert machine.bandwidth == 2 * 4 * 2**24 / 0.7
    assert machine.devices == 1 and machine.device == "cpu" and "measured here" in machine.source
    assert machine.step == read_table(TABLE)["laptop"]["step"]
