#!/usr/bin/env bash
# Writes requirements.lock: exact versions and hashes of all that setup.py names, extras included, for Python 3.11 and 3.12.
# Needs the tool `uv`. Libraries of the CUDA build are left out: `pip install torch==…` brings those that fit the machine,
# before the lock is installed. WHEELS may name a folder with further builds of torch whose hashes are to be accepted.
set -euo pipefail
cd "$(dirname "$0")/.."
constraints=$(mktemp)
raw=$(mktemp)
trap 'rm -f "$constraints" "$raw"' EXIT
printf '%s\n' 'torch==2.13.0' 'torchaudio==2.11.0' 'transformers==5.23.0' 'setuptools==81.0.0' > "$constraints"
uv pip compile setup.py --all-extras --universal --python-version 3.11 --constraint "$constraints" \
    --generate-hashes --no-header --no-annotate --quiet --output-file "$raw"
python3 - "$raw" "${WHEELS:-}" > requirements.lock <<'PY'
import hashlib, pathlib, re, sys

raw, wheels = sys.argv[1:]
extra = sorted(pathlib.Path(wheels).glob("torch-*.whl")) if wheels else []
extra_hashes = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in extra]
entries = re.split(r"\n(?=\S)", pathlib.Path(raw).read_text().strip())
print("# Exact versions with hashes; made by scripts/make_lock.sh. Install torch first, then this:")
print("#   pip install torch==2.13.0 && pip install --no-deps --require-hashes -r requirements.lock")
for entry in entries:
    if re.match(r"(nvidia-|cuda-|triton)", entry) or "sys_platform == 'emscripten'" in entry.splitlines()[0]:
        continue
    if entry.startswith("torch=="):
        entry += "".join(f" \\\n    --hash=sha256:{digest}" for digest in extra_hashes if digest not in entry)
    print(entry)
PY
