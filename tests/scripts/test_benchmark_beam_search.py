import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "beam_search.py"


@pytest.mark.slow
def test_the_report_holds_every_row(tmp_path: Path) -> None:
    shape = ["--labels", "60", "--positions", "7", "--sentences", "3", "--beams", "2", "--lm-lines", "50"]
    subprocess.run(
        [sys.executable, SCRIPT, "--json", f"{tmp_path}/out.json", "--quick", *shape], check=True, cwd=tmp_path
    )
    report = json.loads((tmp_path / "out.json").read_text())
    for name in ("no_lm", "lm"):
        for batch in (1, 3):
            for part in ("", "/with_topk"):
                figures = report["rows"][f"beam2/{name}/ours/batch{batch}{part}/ms"]
                assert 0 < figures["min"] <= figures["median"] <= figures["max"]
    if find_spec("flashlight") is None:  # optional: without it there is nothing to compare with
        assert report["same_translation"] == {}
    else:
        assert report["same_translation"] and set(report["same_translation"].values()) == {1}
