#!/usr/bin/env bash
# From two files of text to a scored one-pass translator. `make quickstart` calls this inside the project's environment.
#
#   PAIR=de-en      de-en, en-de, ro-en or en-ro
#   OUT=DIR         where everything goes (default: runs/quickstart-PAIR); made anew unless KEEP=1, which resumes training
#   UPDATES=N       training updates; MINUTES=N stops the training earlier on a slow machine; EVERY=N updates it validates
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PAIR=${PAIR:-de-en}
SRC=${PAIR%-*} TGT=${PAIR#*-}
DATA=$HERE/data/$PAIR
[ -d "$DATA" ] || DATA=$HERE/data/$TGT-$SRC
OUT=${OUT:-$ROOT/runs/quickstart-$PAIR}
UPDATES=${UPDATES:-2000}
MINUTES=${MINUTES:-10}
EVERY=${EVERY:-100}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
NAT=(--user-dir "$ROOT/nat_plugin" --task ctc_nat)

started=$SECONDS
stage() { printf '\n[%3d s] %s\n' $((SECONDS - started)) "$*"; }
logged() { # run a command, its output into a log; show the log's end if it fails
    local log=$1
    shift
    "$@" > "$log" 2>&1 || { tail -n 20 "$log" >&2; echo "failed: $1, see $log" >&2; exit 1; }
}

[ -d "$DATA" ] || { echo "PAIR=$PAIR: no such pair; there are de-en, en-de, ro-en and en-ro" >&2; exit 2; }
if [ "${KEEP:-0}" != 1 ] && [ -n "$(ls -A "$OUT" 2> /dev/null)" ]; then # only what this script made is removed
    [ -f "$OUT/.quickstart" ] || { echo "OUT=$OUT: holds files that are not the quickstart's; give another folder" >&2; exit 2; }
    rm -rf "$OUT"
fi
mkdir -p "$OUT"
touch "$OUT/.quickstart"

stage "PMLM folder: a joint vocabulary learnt from the corpus, a small model with random weights"
nat prepare-pmlm --from-scratch --vocab-size 4000 --layers 4 --width 256 --heads 4 --ffn 1024 \
    --corpus "$DATA/train.$SRC" "$DATA/train.$TGT" --output "$OUT/pmlm" --overwrite

stage "text → pieces → fairseq's binary form"
nat tokenize --pmlm "$OUT/pmlm" --source-lang "$SRC" --target-lang "$TGT" --destdir "$OUT/pieces" \
    --trainpref "$DATA/train" --validpref "$DATA/valid" --testpref "$DATA/test"
rm -rf "$OUT/data-bin"
logged "$OUT/preprocess.log" fairseq-preprocess --source-lang "$SRC" --target-lang "$TGT" \
    --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" --testpref "$OUT/pieces/test" \
    --srcdict "$OUT/pmlm/dict.txt" --tgtdict "$OUT/pmlm/dict.txt" --destdir "$OUT/data-bin"

# bfloat16 halves the time where the processor multiplies in it, and is emulated slowly where it does not.
PRECISION=()
grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2> /dev/null && PRECISION=(--bf16)
stage "training: $UPDATES updates at most, $MINUTES minutes at most (log: $OUT/train.log) ${PRECISION[*]}"
fairseq-train "$OUT/data-bin" "${NAT[@]}" --arch ctc_pmlm --pmlm "$OUT/pmlm" --criterion ctc_nat_loss \
    --upsample-ratio 2 --dropout 0.25 --attention-dropout 0.1 \
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 1.0 \
    --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 400 --max-tokens 2500 --num-workers 0 --seed 1 "${PRECISION[@]}" --cpu \
    --max-update "$UPDATES" --stop-time-hours "$(awk "BEGIN { print $MINUTES / 60 }")" \
    --eval-bleu --pmlm-tokenizer "$OUT/pmlm" --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
    --validate-interval 1000 --validate-interval-updates "$EVERY" --save-interval-updates "$EVERY" --keep-interval-updates 1 \
    --keep-best-checkpoints 5 --no-epoch-checkpoints --save-dir "$OUT/checkpoints" \
    --log-format simple --log-interval 50 > "$OUT/train.log" 2>&1 &
train=$!
trap 'kill "$train" 2> /dev/null || true' EXIT # a background job does not get the terminal's Ctrl-C
trap 'exit 130' INT TERM
python "$HERE/watch.py" "$OUT/train.log" "$train" || { tail -n 20 "$OUT/train.log" >&2; exit 1; }
wait "$train"

best=$(find "$OUT/checkpoints" -name 'checkpoint.best_bleu_*.pt' | wc -l) # 5, or fewer where the machine was too slow
stage "averaging the best $best checkpoints"
nat average "$OUT/checkpoints" --best "$best" --metric bleu --output "$OUT/model.pt"

stage "translating the test set"
GENERATE=(fairseq-generate "$OUT/data-bin" "${NAT[@]}" --path "$OUT/model.pt" --gen-subset test --cpu
    --bpe pmlm --pmlm-tokenizer "$OUT/pmlm" --scoring sacrebleu)
logged "$OUT/generate.log" "${GENERATE[@]}" --max-tokens 4000
logged "$OUT/generate-batch1.log" "${GENERATE[@]}" --batch-size 1

stage "scores"
python "$HERE/report.py" --source "$DATA/test.$SRC" --reference "$DATA/test.$TGT" \
    --generated "$OUT/generate.log" --batch1 "$OUT/generate-batch1.log" --output "$OUT/test.$TGT"
stage "done; translate your own lines with

  echo 'Save changes' | fairseq-interactive $OUT/data-bin --user-dir nat_plugin --task ctc_nat --cpu \\
      --path $OUT/model.pt --bpe pmlm --pmlm-tokenizer $OUT/pmlm | grep ^D"
