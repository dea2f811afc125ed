#!/usr/bin/env bash
# Published judgements rated by `accord evaluate ratings`, beside what was published of them.
#   runs/head_to_head.sh DATA_DIR [OUT]
# DATA_DIR holds alpaca_eval/ (AlpacaEval's judgements without texts, instructions, outputs, leaderboards),
# pandalm_human/testset-v1.jsonl.gz (PandaLM's test set) and popquorn/offensiveness_raw_data.csv.gz (POPQUORN).
# alpaca_eval's data are for non-commercial use: used by path only.
# The page: python runs/head_to_head_page.py DATA_DIR OUT > docs/results/head-to-head.md (it needs `pip install statsmodels`)
set -euo pipefail
data=${1:?usage: runs/head_to_head.sh DATA_DIR [OUT]}
out=${2:-out/head-to-head}
here=$(dirname "$0")
mkdir -p "$out"
python "$here/alpaca_votes.py" "$data/alpaca_eval" "$out/votes.jsonl.gz"
accord evaluate ratings --data "$out/votes.jsonl.gz" --bootstrap 2000 --out "$out/alpaca"
accord evaluate ratings --data "$data/pandalm_human/testset-v1.jsonl.gz" --bootstrap 2000 --out "$out/pandalm"
accord report "$out/alpaca" "$out/pandalm" --out "$out/report.html" --title "Published votes"
