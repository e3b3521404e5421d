#!/usr/bin/env bash
# The small-scale reproduction on a GPU machine that may have no network and may be taken away: in pieces, each resumable.
#
#     bash scripts/gpu/small_scale.sh pack runs/gpu-data        # where there is a network: makes the text, packs it
#     DATA=runs/gpu-data bash scripts/gpu/small_scale.sh        # on the GPU machine, again and again until it ends with 0
#     bash scripts/gpu/small_scale.sh unpack FOLDER…            # elsewhere: what pieces brought back, oldest first, → WORK
#     DEVICE=cpu SIZE=tiny MINUTES=2 bash scripts/gpu/small_scale.sh          # to try it out
#
# A piece ends with status 0 when all is done, 75 when its time is up, and brings back scores, translations, logs, and what
# a fresh machine needs to go on, in $OUT as parts of one archive of at most 15 MB each.
#
#   SIZE     of examples/ctc_nat_small_scale                                (default: small)
#   WORK     folder of the reproduction                                     (default: runs/ctc-nat-small-scale-$SIZE)
#   DATA     what pack made: unpacked into WORK where that holds no data    (default: none)
#   BACK     folders of what earlier pieces brought back, oldest first      (default: none)
#   OUT      where the parts of the archive go                              (default: runs/gpu-small-scale)
#   MINUTES  of a piece                                                     (default: 8)
#   JOBS     trainings at a time                                            (default: 6)
#   DEVICE   cuda or cpu                                                    (default: cuda)
#   OPTIONS  further options of run.py, for example "--source sample"       (default: none)
#   PYTHON   the interpreter                                                (default: python3)
#   WHEELS   a folder of wheels that this Python lacks, installed beside its own packages for this run only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

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
    tar -C "$work" --no-recursion -cJ -T - | split -b 15M -d - "$1/small-scale.tar.xz."
    ls -l "$1"
}

case ${1:-run} in
pack)
    run data
    (cd "$work" && find data text -path data/debian -prune -o -type f -print) | divide "${2:?folder}"
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
[[ -n ${DATA:-} && ! -d $work/data ]] && join "$DATA"
for folder in ${BACK:-}; do join "$folder"; done
device=()
[[ ${DEVICE:-cuda} == cpu ]] && device=(--cpu)

mkdir -p "$out"
status=0
run all --minutes "${MINUTES:-8}" --jobs "${JOBS:-6}" "${device[@]}" 2>&1 | tee "$out/run.log" || status=$?
# Scores, translations, logs and records always; weights only of the masked LM, which every further training needs.
(cd "$work" && find . -type f \( -name '*.json' -o -name made.sha256 -o -name '*.jsonl' -o -name '*.md' -o -name '*.png' -o -name '*.log' \
    -o -name 'hypotheses.*' -o -path './pmlm/model/*' -o -path './at/*/distilled/*' -o -path './export/*' \) \
    -not -path './data/*' -not -path './text/*' -not -path '*/checkpoints/*' -not -path './pmlm/.tokens/*') | divide "$out"
exit "$status"
