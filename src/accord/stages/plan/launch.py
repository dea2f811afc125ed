"""The command that starts a stage as it was planned: for torchrun, Slurm and Ray."""

import json
import shlex

from accord.stages.plan.choose import PlanInput, Planned


def arguments(choice: Planned, asked: PlanInput) -> list[str]:
    """The command line of the stage; names in capitals are the user's to fill in."""
    config, way, stage = asked.config, choice.way, choice.work.stage
    line = [stage, "--model", config.model, "--data", config.data or "SOURCE", "--out", f"runs/{stage}"]
    line += ["--batch_size", str(config.batch_size), "--precision", way.precision]
    line += ["--micro_tokens", str(choice.memory.micro_tokens), "--recompute", "on" if way.recompute else "off"]
    line += ["--lora_rank", str(way.lora_rank)] if way.lora_rank else []
    line += ["--base_bits", str(way.base_bits)] if way.base_bits else []
    line += ["--shard", "true"] if way.sharded else []
    line += ["--optimizer_bits", str(way.optimizer_bits)] if way.optimizer_bits != 32 else []
    if stage == "ppo":
        line += ["--steps", str(config.iterations), "--samples", str(config.samples)]
        line += ["--ppo_epochs", str(config.ppo_epochs), "--max_new_tokens", str(round(asked.lengths.reply))]
        line += ["--rewards.helpful", "REWARD"]
        line += ["--critic", config.critic]
        for number in range(1, config.cost_models + 1):
            line += [f"--costs.cost{number}", f"COST{number}", f"--limits.cost{number}", "0"]
        return line
    return [*line, "--epochs", f"{config.epochs:g}"]


def torchrun(choice: Planned, asked: PlanInput) -> str:
    """One line for one node."""
    words = ["accord", *arguments(choice, asked)]
    if choice.way.ranks > 1:
        words = ["torchrun", "--standalone", "--nproc-per-node", str(choice.way.ranks), "-m", *words]
    return shlex.join(words)


def slurm(choice: Planned, asked: PlanInput) -> str:
    """A batch script: a launcher on each node, which meet at the first."""
    machine, ranks = asked.machine, choice.way.ranks
    per_node = min(ranks, machine.per_node)
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name=accord-{choice.work.stage}",
        f"#SBATCH --nodes={-(-ranks // per_node)}",
        "#SBATCH --ntasks-per-node=1",
        *([f"#SBATCH --gpus-per-node={per_node}"] if machine.device == "cuda" else []),
        "# two minutes before the end a checkpoint is written, from which --resume goes on",
        "#SBATCH --signal=TERM@120",
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f'srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node {per_node} --rdzv-id "$SLURM_JOB_ID" \\',
        '    --rdzv-backend c10d --rdzv-endpoint "$head:29500" \\',
        f"    -m accord {shlex.join(arguments(choice, asked))}",
    ]
    return "\n".join(lines) + "\n"


def ray(choice: Planned, asked: PlanInput) -> str:
    """A job for `ray job submit --working-dir . -- python FILE`: a worker of Ray's is a rank here."""
    lines = [
        "from ray.train import ScalingConfig",
        "from ray.train.torch import TorchTrainer",
        "",
        f"ARGUMENTS = {json.dumps(arguments(choice, asked))}",
        "",
        "",
        "def work():",
        "    from accord.cli import main",
        "",
        "    if code := main(ARGUMENTS):",
        '        raise RuntimeError(f"accord ended with {code}")',
        "",
        "",
        f"scaling = ScalingConfig(num_workers={choice.way.ranks}, use_gpu={asked.machine.device == 'cuda'})",
        "TorchTrainer(work, scaling_config=scaling).fit()",
    ]
    return "\n".join(lines) + "\n"


FILES = {"sh": torchrun, "slurm": slurm, "ray.py": ray}
