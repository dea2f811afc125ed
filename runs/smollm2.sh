#!/usr/bin/env bash
# A real model through every stage: SmolLM2-135M-Instruct with adapters, on two CPU cores.
#   runs/smollm2.sh DATA_DIR [--pairs 100] [--model FOLDER] [--out OUT]
# DATA_DIR holds hh_rlhf/*.jsonl.gz (HH-RLHF) and pku_saferlhf_pairs/dpo_5k.jsonl.gz (pairs of a safe and an unsafe reply,
# non-commercial licence: used by path only). FOLDER is a snapshot; without it the model is made from the package that
# carries it (runs/smollm2_model.py). A stopped run goes on when called again.
set -euo pipefail
data="" pairs=100 model="" out=out/smollm2
usage="usage: runs/smollm2.sh DATA_DIR [--pairs 100] [--model FOLDER] [--out OUT]"
while [ $# -gt 0 ]; do
    case $1 in
    --pairs) pairs=${2:?$usage}; shift 2 ;;
    --model) model=${2:?$usage}; shift 2 ;;
    --out) out=${2:?$usage}; shift 2 ;;
    -*) echo "$usage" >&2; exit 2 ;;
    *) data=$1; shift ;;
    esac
done
: "${data:?$usage}"
mkdir -p "$out"
. "$(dirname "$0")/hh_common.sh"
if [ -z "$model" ]; then
    model=$out/model
    python "$(dirname "$0")/smollm2_model.py" "$model"
fi
base=$hh/helpful-base.jsonl.gz harmless=$hh/harmless-base.jsonl.gz
safety="$data/pku_saferlhf_pairs/dpo_5k.jsonl.gz?safe=response.0,unsafe=response.1"
rows=$((2 * pairs)) # of which the split that a stage learns from is about half
lora="--lora_rank 16 --max_length 256 --micro_tokens 1024 --checkpoint_minutes 2 --threads 1"
fit="--model $model --split preference --max_rows $rows --epochs 1 --batch_size 16 $lora"

go preference helpful $fit --data "$base" --criterion helpful --learning_rate 2e-4 &
first=$!
go preference cost $fit --data "$harmless" --criterion harmless --role cost --safety_data "$safety" --learning_rate 2e-4
wait $first
rl="--model $model --data.helpful $base --data.harmless $harmless --split policy --max_rows $rows --rewards.helpful
  $out/helpful/snapshot --steps 3 --batch_size 8 --mini_batch_size 8 --max_new_tokens 32 --learning_rate 5e-5
  --critic shared $lora"
go dpo dpo $fit --data "$base" --criterion helpful --learning_rate 1e-4 --kl_prompts 8 --max_new_tokens 32 &
first=$!
go ppo ppo $rl
go ppo limited $rl --costs.harmless "$out/cost/snapshot" --limits.harmless 0 --limit_slices.harmless harmless
wait $first
measure="--data.helpful $base --data.harmless $harmless --split evaluation --max_rows $((rows / 2)) --max_new_tokens 32
  --max_length 256 --rewards.helpful $out/helpful/snapshot --costs.harmless $out/cost/snapshot --threads 1"
go evaluate evaluate-start --model "$model" $measure
judge="--reference $model --against $out/evaluate-start --judge reward/helpful"
go evaluate evaluate-dpo --model "$out/dpo/snapshot" $measure $judge &
first=$!
go evaluate evaluate-ppo --model "$out/ppo/snapshot" $measure $judge
wait $first
go evaluate evaluate-limited --model "$out/limited/snapshot" $measure $judge
accord report "$out"/{helpful,cost,dpo,ppo,limited} "$out"/evaluate-{start,dpo,ppo,limited} \
    --out "$out/report.html" --title "Accord on SmolLM2"
if [ ! -d "$out/export" ]; then accord export "$out/limited/snapshot" --out "$out/export"; fi
