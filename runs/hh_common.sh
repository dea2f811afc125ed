# What the runs on HH-RLHF share; sourced where $data and $out are set.
hh=$data/hh_rlhf
helpful="--data.helpful-base $hh/helpful-base.jsonl.gz --data.helpful-online $hh/helpful-online.jsonl.gz
  --data.helpful-rejection-sampled $hh/helpful-rejection-sampled.jsonl.gz"
go() { # go STAGE FOLDER FLAGS… : run it, or go on with it
    local stage=$1 folder=$2; shift 2
    if [ -d "$out/$folder" ]; then set -- "$@" --resume; fi
    accord "$stage" --out "$out/$folder" "$@"
}
