#!/usr/bin/env bash
# The small-scale reproduction on a GPU machine that may have no network and may be taken away: in pieces, each resumable.
#
#     bash scripts/gpu/small_scale.sh pack runs/gpu-data        # where there is a network: makes the text, packs it
#     DATA=runs/gpu-data bash scripts/gpu/small_scale.sh        # on the GPU machine, again and again until it ends with 0
#     bash scripts/gpu/small_scale.sh unpack runs/gpu-data FOLDER      # elsewhere: text and the newest results → WORK
#     DEVICE=cpu SIZE=tiny MINUTES=2 OPTIONS="--source sample" bash scripts/gpu/small_scale.sh     # to try it out
#
# A piece ends with status 0 when all is done and 75 when its time is up. It brings back scores, translations, logs and
# figures, and the masked LM and distilled texts that a fresh machine needs to go on, in $OUT as parts of an archive. A
# training that is under way goes on in the next piece on the same machine; on a fresh one it starts again, as does one
# whose weights are read there.
#
#   SIZE     of examples/ctc_nat_small_scale                                (default: small)
#   WORK     folder of the reproduction                                     (default: runs/ctc-nat-small-scale-$SIZE)
#   DATA     what pack made: unpacked where WORK holds no data              (default: none)
#   BACK     what the newest piece brought back: unpacked after DATA        (default: none)
#   OUT      where the parts of the archive go                              (default: runs/gpu-small-scale)
#   MINUTES  of a piece, without unpacking, packing and the last figures    (default: 7)
#   JOBS     trainings at a time                                            (default: 6)
#   DEVICE   cuda or cpu                                                    (default: cuda)
#   OPTIONS  further options of run.py, for example "--source sample"       (default: none)
#   PYTHON   the interpreter                                                (default: python3)
#   WHEELS   a folder of wheels that this Python lacks, installed beside its own packages for this run only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PART_BYTES=15000000 MOST_PARTS=8 MOST_BYTES=60000000 # what such machines take and give back at a time
size=${SIZE:-small} python=${PYTHON:-python3}
work=${WORK:-runs/ctc-nat-small-scale-$size} out=${OUT:-runs/gpu-small-scale}
read -ra options <<< "${OPTIONS:-}"
run() { "$python" examples/ctc_nat_small_scale/run.py "$@" --size "$size" --work "$work" "${options[@]}"; }

join() { # unpack the parts in a folder
    local parts=("$1"/small-scale.tar.xz.*)
    [[ -e ${parts[0]} ]] || { echo "$1: holds no small-scale.tar.xz.* parts" >&2; exit 2; }
    mkdir -p "$work"
    cat "${parts[@]}" | tar -xJ -C "$work"
}

divide() { # pack the files named on standard input, relative to $work, into parts in a folder
    mkdir -p "$1"
    rm -f "$1"/small-scale.tar.xz.*
    tar -C "$work" --no-recursion -c -T - | xz -T0 | split -b "$PART_BYTES" -d - "$1/small-scale.tar.xz."
    local parts=("$1"/small-scale.tar.xz.*) bytes
    bytes=$(cat "${parts[@]}" | wc -c)
    echo "$1: ${#parts[@]} parts, $bytes bytes"
    if ((${#parts[@]} > MOST_PARTS || bytes > MOST_BYTES)); then
        echo "$1: more than $MOST_PARTS parts or $MOST_BYTES bytes; some machines do not take so much" >&2
    fi
}

case ${1:-run} in
pack) # the n-gram models are made again in seconds
    run data
    (cd "$work" && find setting.json data text \( -path data/debian -o -path data/lm -o -path '*/copyright' \) -prune \
        -o -type f -print) | divide "${2:?folder}"
    exit
    ;;
unpack)
    shift
    for folder in "$@"; do join "$folder"; done
    exit
    ;;
run) ;;
*) echo "$1: expected pack, unpack or nothing" >&2; exit 2 ;;
esac

if [[ -n ${WHEELS:-} ]]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
if [[ ! -d $work/data ]]; then
    [[ -n ${DATA:-} ]] && join "$DATA"
    [[ -n ${BACK:-} ]] && join "$BACK"
fi
device=()
[[ ${DEVICE:-cuda} == cpu ]] && device=(--cpu)

mkdir -p "$out"
status=0
run all --minutes "${MINUTES:-7}" --jobs "${JOBS:-6}" --drop-checkpoints "${device[@]}" 2>&1 | tee "$out/run.log" || status=$?
# Not what a training under way has written down: without its checkpoints it would be taken for one to go on with.
(cd "$work" && find . -type f \( -name '*.json' -o -name '*.jsonl' -o -name made.sha256 -o -name '*.md' -o -name '*.png' \
    -o -name '*.log' -o -name 'hypotheses.*' -o -path './pmlm/model/*' -o -path './at/*/distilled/*' -o -path './export/*' \) \
    -not -path './data/*' -not -path './text/*' -not -path '*/checkpoints/*' -not -path './pmlm/.tokens/*' \
    -not -name '*.begun.json' -not -path '*/shards/*') | divide "$out"
exit "$status"
