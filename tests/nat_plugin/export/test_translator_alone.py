"""The translator needs onnxruntime, tokenizers and numpy, and nothing else."""

import subprocess
import sys
from pathlib import Path

from tests.commands import ROOT

ONLY = """
import sys

ALLOWED = {"numpy", "onnxruntime", "tokenizers", "nat_plugin", "plugin_common", *sys.stdlib_module_names}


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Refuse())
from nat_plugin.export import Translator

for options in ({"precision": "fp32"}, {"beam": 4}):
    translator = Translator(sys.argv[1], threads=1, **options)
    print(len(translator.translate_with_scores(["the dog", ""])), translator.translate(["the dog"])[0] != "")
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"torch", "fairseq", "transformers", "tqdm", "scipy", "sentencepiece", "huggingface_hub"}))
"""


def test_it_runs_with_three_libraries_alone(exported: Path) -> None:
    command = [sys.executable, "-c", ONLY, str(exported)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 True\n2 True\n[]\n"


def test_the_package_itself_loads_nothing() -> None:
    code = "import sys, nat_plugin.export; print(sorted({'numpy', 'onnxruntime', 'tokenizers'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
