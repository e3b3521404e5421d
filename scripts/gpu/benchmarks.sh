#!/usr/bin/env bash
# Runs the benchmarks of the CTC loss, of the whole training step (float32 products without and with TensorFloat-32, and
# bf16) and of decoding on a GPU. Each writes a JSON into $OUT; a benchmark that fails does not stop the others, and the script
# then ends with status 1.
#
#     bash scripts/gpu/benchmarks.sh
#     DEVICE=cpu QUICK=1 bash scripts/gpu/benchmarks.sh     # to try it out
#
#   OUT      folder of the reports                                          (default: runs/gpu)
#   DEVICE   cuda or cpu                                                    (default: cuda)
#   QUICK    1: fewer repeats and rows                                      (default: unset)
#   SIZE     shape of the trained model: small, base (XLM-R base) or try    (default: base on cuda, small on a CPU)
#   PYTHON   the interpreter                                                (default: python3)
#   WHEELS   a folder of wheels that this Python lacks, installed beside its own packages for this run only
#   ONLY     ctc_loss, training_step or decoding                            (default: all)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=${OUT:-runs/gpu} device=${DEVICE:-cuda} python=${PYTHON:-python3}
if [[ $device == cpu ]]; then size=${SIZE:-small}; else size=${SIZE:-base}; fi
quick=() failed=()
[[ ${QUICK:-} == 1 ]] && quick=(--quick)
mkdir -p "$out"

if [[ -n ${WHEELS:-} ]]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit 1
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi

"$python" - "$device" <<'PYTHON' || exit 1
import sys
import torch

if sys.argv[1] == "cuda" and not torch.cuda.is_available():
    sys.exit("error: torch finds no CUDA device; DEVICE=cpu QUICK=1 tries the benchmarks out on the CPU")
print("torch", torch.__version__, torch.cuda.get_device_name() if sys.argv[1] == "cuda" else "on the CPU")
PYTHON

# measure NAME BENCHMARK [OPTION …]
measure() {
    local name=$1 benchmark=$2
    shift 2
    [[ -n ${ONLY:-} && $benchmark != "$ONLY" ]] && return
    echo "== $name"
    "$python" "scripts/benchmarks/$benchmark.py" --json "$out/$name.json" --device "$device" "${quick[@]}" "$@" \
        2> >(tee "$out/$name.log" >&2) || failed+=("$name")
}

measure ctc_loss_fp32 ctc_loss --dtype fp32
[[ $device == cuda ]] && measure ctc_loss_tf32 ctc_loss --dtype fp32 --tf32
measure ctc_loss_bf16 ctc_loss --dtype bf16
measure training_step_fp32 training_step --size "$size" --dtypes fp32
[[ $device == cuda ]] && measure training_step_tf32 training_step --size "$size" --dtypes fp32 --tf32
measure training_step_bf16 training_step --size "$size" --dtypes bf16
measure decoding decoding --sizes "$size" --plot "$out/decoding.png"

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}; see the logs in $out" >&2
    exit 1
fi
echo "reports in $out"
