#!/usr/bin/env bash
# Which pretraining helps a small preference model on HH-RLHF, and by how much: four starts, five folds, two criteria.
#   runs/hh_preference.sh DATA_DIR [OUT]
# DATA_DIR holds hh_rlhf/, text_novels/, text_misc/, autoj_pairwise/, tldr_judged/ and alpaca_eval/; the last's texts are
# of a non-commercial licence and used by path only. A stopped run goes on when called again. ACCORD_ROWS bounds the
# rows of every source and ACCORD_STEPS the pretraining, to try the script out.
set -euo pipefail
data=${1:?usage: runs/hh_preference.sh DATA_DIR [OUT]}
out=${2:-out/hh-preference}
mkdir -p "$out"
. "$(dirname "$0")/hh_common.sh"
here=$(dirname "$0")
misc=$data/text_misc
few="--max_rows ${ACCORD_ROWS:-0}"
harmless="--data.harmless-base $hh/harmless-base.jsonl.gz"
# one thread each from here on, two stages side by side, but for the pretraining
fit="$few --batch_size 32 --checkpoint_every 100 --threads 1"

go pretrain pretrained --model tiny --data.novels "$data/text_novels" --data.shakespeare "$misc/tinyshakespeare.txt.gz" \
    --data.wikitext "$misc/wikitext2_valid.txt.gz" --data.wikipedia "$misc/wiki_demo.txt.gz" \
    --data.web "$misc/c4_demo.jsonl.gz" $few --vocab_size 4096 --steps "${ACCORD_STEPS:-300}" --batch_size 4096 \
    --max_length 384 --learning_rate 4e-3 --matrix_learning_rate 0.02 --threads "${ACCORD_THREADS:-0}"
# the same tokenizer, and weights as they are drawn
go pretrain untrained --model tiny --data "$misc/c4_demo.jsonl.gz" --tokenizer "$out/pretrained/snapshot" --steps 0 --threads 1
[ -e "$out/pmp.json" ] || python "$here/hh_pmp_data.py" "$data" "$out"
pmp="--model $out/pretrained/snapshot --data $out/pmp.jsonl --criterion helpful --max_length 512 $fit"
# every row is tested once, by a model that saw no conversation with the same opening
folds() { # folds START CRITERION SOURCES…
    local start=$1 criterion=$2 folder=$2-$1; shift 2
    if [ -d "$out/$folder" ]; then set -- "$@" --resume true; fi
    python "$here/hh_folds.py" --out "$out/$folder" --model "$out/$start/snapshot" --criterion "$criterion" "$@" \
        $fit --max_length 384 --folds 5
}
go preference pmp $pmp &
first=$!
folds untrained helpful $helpful
wait $first
folds pretrained helpful $helpful &
first=$!
folds pmp helpful $helpful
wait $first
folds untrained harmless $harmless &
first=$!
folds pretrained harmless $harmless
wait $first
folds pmp harmless $harmless &
first=$!
go preference pmp-binarised $pmp --binarise true
wait $first
folds pmp-binarised helpful $helpful &
first=$!
folds pmp-binarised harmless $harmless
wait $first
python "$here/hh_preference_page.py" "$out" > "$out/hh-preference.md"
