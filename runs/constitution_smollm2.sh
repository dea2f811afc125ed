#!/usr/bin/env bash
# SmolLM2-135M-Instruct as judge, critic and reviser, on two CPU cores.
#   runs/constitution_smollm2.sh DATA_DIR [--prompts 500] [--piece hhh|revisions] [--model FOLDER] [--out OUT]
# DATA_DIR holds cai_evals/438HHHEvaluations.jsonl.gz (the HHH evaluations of Constitutional AI) and
# hh_red_team_prompts/question.txt.gz (a prompt a line, from HH-RLHF's red-team conversations). FOLDER is a snapshot;
# without it the model is made from the package that carries it (runs/smollm2_model.py). A stopped run goes on when
# called again. Then: python runs/constitution_smollm2_page.py OUT > docs/results/constitution-smollm2.md
set -euo pipefail
here=$(dirname "$0")
exec python "$here/pieces.py" "$here/constitution_smollm2.yaml" "$@"
