#!/usr/bin/env bash
# The quickstart's peer: fairseq's own Transformer (autoregressive) of like size, trained for the same wall-clock time on
# the same pieces, beam 5 and beam 1, scored and timed alike. Run it after run.sh, with the same PAIR and OUT.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PAIR=${PAIR:-de-en}
SRC=${PAIR%-*} TGT=${PAIR#*-}
DATA=$HERE/data/$PAIR
[ -d "$DATA" ] || DATA=$HERE/data/$TGT-$SRC
OUT=${OUT:-$ROOT/runs/quickstart-$PAIR}
SAVE=$OUT/baseline
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
[ -f "$OUT/train.log" ] || { echo "$OUT/train.log is missing: run examples/quickstart/run.sh first" >&2; exit 2; }
# The same time as the one-pass model took, validation included, as fairseq's log tells it.
SECONDS_TAKEN=$(sed -n 's/.*done training in \([0-9.]*\) seconds.*/\1/p' "$OUT/train.log" | tail -n 1)

PRECISION=()
grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2> /dev/null && PRECISION=(--bf16)
rm -rf "$SAVE"
mkdir -p "$SAVE"
echo "training a Transformer for $SECONDS_TAKEN s (log: $SAVE/train.log)"
fairseq-train "$OUT/data-bin" --user-dir "$ROOT/nat_plugin" --task translation --source-lang "$SRC" --target-lang "$TGT" \
    --arch transformer --encoder-layers 3 --decoder-layers 3 --encoder-embed-dim 256 --decoder-embed-dim 256 \
    --encoder-ffn-embed-dim 1024 --decoder-ffn-embed-dim 1024 --encoder-attention-heads 4 --decoder-attention-heads 4 \
    --share-all-embeddings --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --dropout "${DROPOUT:-0.2}" \
    --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 1.0 \
    --lr "${LR:-2e-3}" --lr-scheduler inverse_sqrt --warmup-updates 400 --max-tokens 2500 --seed 1 "${PRECISION[@]}" --cpu \
    --num-workers 0 --required-batch-size-multiple 1 \
    --stop-time-hours "$(awk "BEGIN { print $SECONDS_TAKEN / 3600 }")" --validate-interval 1000 \
    --validate-interval-updates 100 --save-interval-updates 100 --keep-interval-updates 1 --keep-best-checkpoints 5 \
    --no-epoch-checkpoints --save-dir "$SAVE" --log-format simple --log-interval 50 > "$SAVE/train.log" 2>&1
grep -o 'model.*num\. trained\|num. shared model params.*' "$SAVE/train.log" | tail -n 1
nat average "$SAVE" --best 5 --metric loss --minimize --output "$SAVE/model.pt"

for beam in 5 1; do
    for batch in "--max-tokens 4000" "--batch-size 1"; do
        # shellcheck disable=SC2086
        fairseq-generate "$OUT/data-bin" --user-dir "$ROOT/nat_plugin" --task translation --path "$SAVE/model.pt" \
            --source-lang "$SRC" --target-lang "$TGT" --gen-subset test --cpu --beam "$beam" $batch \
            --required-batch-size-multiple 1 --bpe pmlm --pmlm-tokenizer "$OUT/pmlm" --scoring sacrebleu \
            > "$SAVE/generate-beam$beam-${batch//[^a-z0-9]/}.log" 2>&1
    done
    echo "beam $beam"
    python "$HERE/report.py" --source "$DATA/test.$SRC" --reference "$DATA/test.$TGT" \
        --generated "$SAVE/generate-beam$beam-maxtokens4000.log" --batch1 "$SAVE/generate-beam$beam-batchsize1.log" \
        --output "$SAVE/test-beam$beam.$TGT" | tail -n 5
done
