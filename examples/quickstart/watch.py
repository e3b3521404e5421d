"""Show a fairseq training as it goes: a line for each validation in its log, until the process ends."""

import os
import re
import sys
import time
from pathlib import Path

VALIDATION = re.compile(r"\| loss (?P<loss>[\d.]+).*\| bleu (?P<bleu>[\d.]+).*\| num_updates (?P<updates>\d+)")


def is_running(pid: int) -> bool:
    """Whether a process of ours still works (a finished child that nobody waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return not Path("/proc/self/stat").exists()


def summary(line: str) -> str | None:
    """``update 300: loss 5.1 bits a token, BLEU 12.3`` for a line that reports a validation."""
    found = VALIDATION.search(line) if "valid on" in line else None
    if found is None:
        return None
    updates, loss, bleu = found["updates"], float(found["loss"]), float(found["bleu"])
    return f"  update {updates:>5}: validation loss {loss:6.2f} bits a token, BLEU {bleu:5.2f}"


def main() -> int:
    """0 if the log ends as a finished training's does."""
    log, pid = Path(sys.argv[1]), int(sys.argv[2])
    seen = 0
    while True:
        running = is_running(pid)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        for line in lines[seen:]:
            if text := summary(line):
                print(text, flush=True)
        seen = len(lines)
        if not running:
            return 0 if any("done training" in line for line in lines) else 1
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
