#!/usr/bin/env bash
# SmolLM2-135M-Instruct as judge, critic and reviser, on two CPU cores.
#   runs/constitution_smollm2.sh DATA_DIR [--prompts 500] [--part hhh|revisions|all] [--model FOLDER] [--out OUT]
# DATA_DIR holds cai_evals/438HHHEvaluations.jsonl.gz (the HHH evaluations of Constitutional AI) and
# hh_red_team_prompts/question.txt.gz (a prompt a line, from HH-RLHF's red-team conversations). FOLDER is a snapshot;
# without it the model is made from the package that carries it (runs/smollm2_model.py). A stopped run goes on when
# called again. Then: python runs/constitution_smollm2_page.py OUT > docs/results/constitution-smollm2.md
set -euo pipefail
data="" prompts=500 part=all model="" out=out/constitution-smollm2
usage="usage: runs/constitution_smollm2.sh DATA_DIR [--prompts 500] [--part hhh|revisions|all] [--model FOLDER] [--out OUT]"
while [ $# -gt 0 ]; do
    case $1 in
    --prompts) prompts=${2:?$usage}; shift 2 ;;
    --part) part=${2:?$usage}; shift 2 ;;
    --model) model=${2:?$usage}; shift 2 ;;
    --out) out=${2:?$usage}; shift 2 ;;
    -*) echo "$usage" >&2; exit 2 ;;
    *) data=$1; shift ;;
    esac
done
: "${data:?$usage}"
case $part in hhh | revisions | all) ;; *) echo "$usage" >&2; exit 2 ;; esac
mkdir -p "$out"
. "$(dirname "$0")/hh_common.sh"
if [ -z "$model" ]; then
    model=$out/model
    python "$(dirname "$0")/smollm2_model.py" "$model"
fi

if [ "$part" != revisions ]; then
    for question in choice yes-no score; do # each measured before and after a temperature, cross-fitted
        go constitution "hhh-$question" --make calibration --judge "$model" --question $question --criterion hhh \
            --data "$data/cai_evals/438HHHEvaluations.jsonl.gz" --constitution "$(dirname "$0")/hhh.yaml"
    done
fi
if [ "$part" != hhh ]; then
    go constitution revised --model "$model" --data "$data/hh_red_team_prompts/question.txt.gz" \
        --max_rows "$prompts" --revisions 2 --shots 1 --max_new_tokens 64
fi
