"""`python benchmarks/ours TASK FOLDER`: one task of our side; the last line is its JSON."""

import json
import sys
from pathlib import Path

import torch

from accord import __version__
from accord.training import heap
from benchmarks.clock import peak_mib
from benchmarks.ours.feedback import feedback_next, feedback_start, feedback_submits
from benchmarks.ours.paths import paths
from benchmarks.ours.planned import planned
from benchmarks.ours.policy import given, group, ppo, stages
from benchmarks.ours.ranks import rank, ranks
from benchmarks.ours.sampling import agreement, generation
from benchmarks.ours.startup import startup
from benchmarks.ours.supervised import dpo, preference, sft

TASKS = {
    "sft": sft,
    "preference": preference,
    "dpo": dpo,
    "generation": generation,
    "agreement": agreement,
    "group": group,
    "ppo": ppo,
    "given": given,
    "stages": stages,
    "startup": startup,
    "paths": paths,
    "planned": planned,
    "ranks": ranks,
    "rank": rank,
    "feedback_submits": feedback_submits,
    "feedback_next": feedback_next,
    "feedback_start": feedback_start,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    heap.give_back()  # as every stage does
    idle = peak_mib("cpu")
    result = TASKS[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps({**result, "idle_mib": idle, "versions": {"accord": __version__, "torch": torch.__version__}}))
