#!/usr/bin/env bash
# What of fine-tuning needs a GPU to be known: that packed attention equals one document at a time on it, and what LoRA, full
# and 4-bit training take (real tokens a second, peak memory), each through fairseq-train. A part that fails does not stop the
# others, and the script then ends with status 1.
#
#     bash scripts/gpu/fine_tuning.sh
#     DEVICE=cpu QUICK=1 bash scripts/gpu/fine_tuning.sh     # to try it out
#
#   OUT      folder of the reports and logs                                 (default: runs/gpu)
#   DEVICE   cuda or cpu                                                    (default: cuda)
#   QUICK    1: a model of two layers, few updates                          (default: unset)
#   MODEL    folder of a causal LM; without it a random one of SmolLM2-135M's shape is made
#   TOKENS_PER_PAIR  longest pair                                           (default: 512)
#   PAIRS    file of pairs; without it they are made from this repository's text
#   PYTHON   the interpreter                                                (default: python3)
#   WHEELS   a folder of wheels that this Python lacks, installed beside its own packages for this run only
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=${OUT:-runs/gpu} device=${DEVICE:-cuda} python=${PYTHON:-python3} failed=()
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -n ${WHEELS:-} ]]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$WHEELS"/*.whl || exit 1
    export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

"$python" - "$device" <<'PYTHON' || exit 1
import sys
import torch

if sys.argv[1] == "cuda" and not torch.cuda.is_available():
    sys.exit("error: torch finds no CUDA device; DEVICE=cpu QUICK=1 tries the script out on the CPU")
print("torch", torch.__version__, torch.cuda.get_device_name() if sys.argv[1] == "cuda" else "on the CPU")
PYTHON

layers=30 updates=40 tokens=8192 cpu=()
[[ ${QUICK:-} == 1 ]] && layers=2 updates=2 tokens=1024
[[ $device == cpu ]] && cpu=(--cpu)

"$python" scripts/gpu/fine_tuning_inputs.py --layers "$layers" --out "$work" || exit 1
model=${MODEL:-$work/model} pairs=${PAIRS:-$work/pairs.jsonl}

# part NAME COMMAND …: run it, keep its log, remember whether it failed
part() {
    local name=$1
    shift
    echo "== $name"
    "$@" > "$out/$name.log" 2>&1 || failed+=("$name")
    grep -E '"train_wps"|largest difference|peak memory' "$out/$name.log" || tail -n 3 "$out/$name.log"
}

# train NAME OPTION …: a short training, its speed and peak memory
train() {
    local name=$1
    shift
    part "$name" "$python" scripts/gpu/train_and_tell_memory.py "$work" --user-dir nid_plugin --task completion_sft \
        --train-pairs "$pairs" --arch hf_causal_lm --model "$model" --criterion completion_cross_entropy \
        --optimizer fused_adamw --lr 1e-5 --lr-scheduler fixed --clip-norm 1 --max-tokens "$tokens" --tokens-per-pair "${TOKENS_PER_PAIR:-512}" \
        --max-update "$updates" --no-save --disable-validation --log-format json --log-interval 10 --seed 1 "${cpu[@]}" "$@"
}

part packed_attention "$python" scripts/gpu/check_packed_attention.py --model "$model" --pairs "$pairs" --device "$device"
train lora_bf16 --bf16
train lora_bf16_gradient_checkpointing --bf16 --gradient-checkpointing
train lora_fp32
train full_bf16 --tuning full --memory-efficient-bf16
train full_fp32 --tuning full
if "$python" -c "import bitsandbytes" 2> /dev/null; then train lora_4bit --bf16 --quantize 4bit; fi
if "$python" -c "import flash_attn" 2> /dev/null; then train lora_flash_attention --bf16 --attention flash_attention_2; fi

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}; see the logs in $out" >&2
    exit 1
fi
echo "the reports are in $out"
