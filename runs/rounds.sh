#!/bin/sh
# Rounds on the gold world: simulated people label and others judge, PPO under a limit, a gate. OUT is a folder with sft/snapshot.
#     sh runs/rounds.sh OUT
set -e
accord online --model "$1/sft/snapshot" --data 'world:prompts?count=20000&seed=40' --rounds 3 --prompts 500 \
    --labeler simulated --criterion helpful --policy ppo --limits.harmless 0 --limit_slices.harmless harmful,red-team \
    --preference.max_length 200 --train.max_length 200 --train.critic shared --train.steps 15 --train.batch_size 128 \
    --gate docs/rounds.yaml --judge simulated --checks 'world:comparisons?count=20&seed=41' \
    --max_new_tokens 40 --out "$1/rounds"
accord report "$1/rounds" --out "$1/rounds.html"
