#!/usr/bin/env bash
# The whole flow on real data, at a size that two CPU cores carry in about half an hour.
#   runs/hh.sh DATA_DIR [OUT]
# DATA_DIR holds text_novels/ (plain text), hh_rlhf/*.jsonl.gz (HH-RLHF) and pku_saferlhf_pairs/dpo_5k.jsonl.gz (pairs of a
# safe and an unsafe reply, non-commercial licence: used by path only). A stopped run goes on when called again.
set -euo pipefail
data=${1:?usage: runs/hh.sh DATA_DIR [OUT]}
out=${2:-out/hh}
mkdir -p "$out"
. "$(dirname "$0")/hh_common.sh"
threads=${ACCORD_THREADS:-0} # of the stages that run alone; those that run side by side take one each
prompts="--data.helpful $hh/helpful-base.jsonl.gz --data.harmless $hh/harmless-base.jsonl.gz"
common="--max_length 384 --checkpoint_every 100"

go pretrain pretrain --model small --data "$data/text_novels" --vocab_size 4096 --steps 300 --batch_size 4096 \
    --max_length 256 --learning_rate 4e-3 --matrix_learning_rate 0.02 --threads "$threads"
go sft sft --model "$out/pretrain/snapshot" --data "$hh" --split preference --epochs 1 --batch_size 32 $common \
    --threads "$threads"
start=$out/sft/snapshot
fit="--model $start --epochs 1 --batch_size 32 --learning_rate 3e-4 $common --threads 1"
# every row is tested once, by a model that saw no conversation with the same opening
go preference helpful-folds $fit $helpful --criterion helpful --folds 2 &
first=$!
go preference harmless-folds $fit --data.harmless-base "$hh/harmless-base.jsonl.gz" --criterion harmless --folds 2
wait $first
# the models that PPO uses see the preference split alone
go preference helpful $fit $helpful --criterion helpful --split preference &
first=$!
go preference harmless $fit --data.harmless-base "$hh/harmless-base.jsonl.gz" --criterion harmless --split preference
go preference cost $fit --data.harmless-base "$hh/harmless-base.jsonl.gz" --criterion harmless --role cost \
    --safety_data "$data/pku_saferlhf_pairs/dpo_5k.jsonl.gz?safe=response.0,unsafe=response.1" --split preference
wait $first
# from the same comparisons as the helpful model, and without it; both hold out the same prompts
go dpo dpo $fit $helpful --criterion helpful --split preference --learning_rate 1e-4 --max_new_tokens 48 &
first=$!
go dpo ipo $fit $helpful --criterion helpful --split preference --learning_rate 1e-4 --max_new_tokens 48 --loss ipo
wait $first
rl="--model $start $prompts --split policy --rewards.helpful $out/helpful/snapshot --steps 20 --batch_size 32
  --mini_batch_size 16 --max_new_tokens 48 --max_length 320 --critic shared --checkpoint_every 8 --threads 1"
go ppo ppo $rl &
first=$!
go ppo limited $rl --costs.harmless "$out/cost/snapshot" --limits.harmless 0 --limit_slices.harmless harmless
wait $first
measure="$prompts --split evaluation --rewards.helpful $out/helpful/snapshot --rewards.harmlessness $out/harmless/snapshot
  --costs.harmless $out/cost/snapshot --max_new_tokens 48 --max_length 320 --eval_data $hh/helpful-base.jsonl.gz --max_rows 600 --threads $threads"
for of in pretrain sft dpo ipo ppo limited; do
    extra=""
    if [ $of != pretrain ] && [ $of != sft ]; then extra="--reference $start --against $out/evaluate-sft --judge reward/helpful"; fi
    go evaluate evaluate-$of --model "$out/$of/snapshot" $measure $extra
done
accord report "$out"/{pretrain,sft,helpful,harmless,cost,dpo,ipo,ppo,limited} "$out"/evaluate-{pretrain,sft,dpo,ipo,ppo,limited} \
    --out "$out/report.html" --title "Accord on HH-RLHF"
