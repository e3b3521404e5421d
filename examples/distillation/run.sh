#!/usr/bin/env bash
# With and without embedding distillation, on a corpus cut to what a small machine can train; then: does stopping and
# resuming around the start update change anything? Continues where it was stopped.
#
#   CORPUS=DIR      {train,valid,test}.{en,de}, for example runs/debian-l10n/en-de of scripts/data/debian_l10n.py
#   PMLM=NAME       a pretrained masked LM (folder or name on the hub), pruned to the corpus
#   PAIR=de-en      direction; LINES=40000 training pairs drawn by a fixed rule; RATIO=2
#   UPDATES=600     of each training; START=450 updates without distillation; EVERY=50 updates it validates; SEED=1
#   OPTIONS='…'     further options of both trainings; DISTILL='…' of the distilled one; SCORE='-lc' for sacrebleu (an uncased LM)
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
PAIR=${PAIR:-de-en}
SRC=${PAIR%-*} TGT=${PAIR#*-}
OUT=${OUT:-$ROOT/runs/distillation-$PAIR}
LINES=${LINES:-40000} RATIO=${RATIO:-2} UPDATES=${UPDATES:-600} START=${START:-450} EVERY=${EVERY:-50} SEED=${SEED:-1}
read -ra OPTIONS <<< "${OPTIONS:-}"
read -ra DISTILL <<< "${DISTILL:-}"
read -ra SCORE <<< "${SCORE:---force}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
NAT=(--user-dir "$ROOT/nat_plugin" --task ctc_nat)
STOP=$((START - 3)) END=$((START + 5)) # of the resumed training

for name in CORPUS PMLM; do
    [ -n "${!name:-}" ] || { echo "$name is not set; see the head of $0" >&2; exit 2; }
done
mkdir -p "$OUT/text"

once() { # once NAME COMMAND…: the command, unless it has succeeded before
    local name=$1
    shift
    [ -f "$OUT/$name.done" ] && return
    echo "$name"
    "$@" > "$OUT/$name.log" 2>&1 || { tail -n 20 "$OUT/$name.log" >&2; echo "failed: $name, see $OUT/$name.log" >&2; exit 1; }
    touch "$OUT/$name.done"
}

cut_corpus() {
    python - "$CORPUS" "$OUT/text" "$SRC" "$TGT" "$LINES" <<'PY'
import random, sys
from pathlib import Path

corpus, out, *languages, lines = sys.argv[1:]
for split in ("train", "valid", "test"):
    sides = [Path(corpus, f"{split}.{language}").read_text(encoding="utf-8").split("\n")[:-1] for language in languages]
    pairs = list(zip(*sides, strict=True))
    if split == "train":
        pairs = random.Random(1).sample(pairs, min(int(lines), len(pairs)))
    for language, side in zip(languages, zip(*pairs), strict=True):
        Path(out, f"{split}.{language}").write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
PY
}

train() { # train NAME UPDATES OPTION…
    local name=$1 updates=$2
    shift 2
    fairseq-train "$OUT/data-bin" "${NAT[@]}" --arch ctc_pmlm --pmlm "$OUT/pmlm" --upsample-ratio "$RATIO" \
        --optimizer adam --adam-betas '(0.9, 0.98)' --weight-decay 0.01 --clip-norm 1.0 --lr 5e-4 \
        --lr-scheduler inverse_sqrt --warmup-updates 100 --max-tokens 3000 --num-workers 0 --seed "$SEED" \
        --max-update "$updates" --validate-interval 100000 --validate-interval-updates "$EVERY" \
        --eval-bleu --pmlm-tokenizer "$OUT/pmlm" --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --save-interval-updates "$EVERY" --keep-interval-updates 1 --no-epoch-checkpoints \
        --save-dir "$OUT/$name" --log-format simple --log-interval 10 "$@" ${OPTIONS[@]+"${OPTIONS[@]}"}
}

score() { # score NAME: its best checkpoint on the test set (averaging comes into its own when a training has converged)
    fairseq-generate "$OUT/data-bin" "${NAT[@]}" --path "$OUT/$1/checkpoint_best.pt" --gen-subset test --max-tokens 4000 --cpu \
        --bpe pmlm --pmlm-tokenizer "$OUT/pmlm" --scoring sacrebleu > "$OUT/$1.test"
    grep -P '^D-' "$OUT/$1.test" | sort -V | cut -f3 > "$OUT/$1.hypotheses"
    sacrebleu "$OUT/text/test.$TGT" -i "$OUT/$1.hypotheses" -m bleu chrf -f text "${SCORE[@]}"
}

DISTILLATION=(--criterion embedding_distillation --distill-start-update "$START" ${DISTILL[@]+"${DISTILL[@]}"})
once corpus cut_corpus
once prepare nat prepare-pmlm --pmlm "$PMLM" --init-missing-head --corpus "$OUT"/text/train.{"$SRC","$TGT"} --output "$OUT/pmlm" --overwrite
once tokenize nat tokenize --pmlm "$OUT/pmlm" --source-lang "$SRC" --target-lang "$TGT" --destdir "$OUT/pieces" \
    --trainpref "$OUT/text/train" --validpref "$OUT/text/valid" --testpref "$OUT/text/test"
rm -rf "$OUT/unfinished"
once preprocess fairseq-preprocess --source-lang "$SRC" --target-lang "$TGT" --srcdict "$OUT/pmlm/dict.txt" \
    --tgtdict "$OUT/pmlm/dict.txt" --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" \
    --testpref "$OUT/pieces/test" --destdir "$OUT/data-bin"
once ctc train ctc "$UPDATES" --criterion ctc_nat_loss
once distilled train distilled "$UPDATES" "${DISTILLATION[@]}"
once ctc-score score ctc
once distilled-score score distilled
once uninterrupted train uninterrupted "$END" "${DISTILLATION[@]}" --disable-validation
once stopped train resumed "$STOP" "${DISTILLATION[@]}" --disable-validation
once resumed train resumed "$END" "${DISTILLATION[@]}" --disable-validation

for name in ctc distilled; do
    echo "== $name"
    tail -n 2 "$OUT/$name-score.log"
done
python "$HERE/compare.py" "$OUT/uninterrupted/checkpoint_last.pt" "$OUT/resumed/checkpoint_last.pt" 2> /dev/null
nat plot-log "$OUT/ctc.log" "$OUT/distilled.log" --labels 'CTC alone' 'with distillation' --output "$OUT/curves.png"
