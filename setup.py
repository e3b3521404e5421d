"""Packaging of the plugins; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="fairseq-onepass",
    version="0.1.0",
    description="One-pass (CTC) translation and completion fine-tuning, as fairseq plugins",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["plugin_common*", "nat_plugin*", "nid_plugin*"]),
    package_data={
        "plugin_common": ["py.typed"],
        "nat_plugin": ["py.typed"],
        "nid_plugin": ["py.typed", "audit/*.txt", "completion/prices.toml"],
    },
    # What the packages import; requirements.lock pins the exact versions that are tested.
    install_requires=[
        "httpx2>=2",
        "hydra-core>=1.3.2,<1.4",
        "numpy>=2,<3",
        "omegaconf>=2.3,<2.4",
        "sacrebleu>=2.5",
        "sacremoses>=0.1.1",
        "safetensors>=0.4",
        "scipy>=1.11",
        "sentencepiece>=0.2",
        "tokenizers>=0.22",
        "torch>=2.9",
        "tqdm>=4.66",
        "transformers>=5,<6",
        "ve-fairseq==0.12.3",
    ],
    extras_require={
        "bpe": ["subword-nmt>=0.3.8"],
        "corpora": ["babel>=2.14", "lxml>=5"],
        # Without lm-eval[math], which needs another antlr4-python3-runtime than fairseq's omegaconf.
        "evaluation": ["lm-eval[hf,ifeval]>=0.4.13,<0.5", "pyyaml>=6"],
        "export": ["onnx>=1.20", "onnxruntime>=1.23", "onnxscript>=0.5.6"],
        "figures": ["matplotlib>=3.9"],
        "pretraining": ["accelerate>=1.1"],
        "nid": [
            "accelerate>=1.1",
            "aiohttp>=3.13",
            "aiolimiter>=1.2",
            "datasets>=4",
            "gguf>=0.17",
            "matplotlib>=3.9",
            "openai[aiohttp]>=3",
            "orjson>=3.10",
            "peft>=0.18",
            "py3langid>=0.3",
            "pyarrow>=20",
            "rbloom>=1.5",
            "regex>=2024.11.6",
            "rensa>=0.5",
            "sentencex>=1",
            "tenacity>=9",
            "xxhash>=3.5",
            "zstandard>=0.23",
        ],
        "dev": [
            "babel>=2.14",
            "ctranslate2>=4.6",
            "hypothesis>=6",
            "lxml>=5",
            "matplotlib>=3.9",
            "mypy>=1.13",
            "pytest>=8",
            "pytest-xdist>=3",
            "ruff>=0.8",
            "trl>=1.16,<2",
            "uvloop>=0.21",
        ],
    },
    entry_points={"console_scripts": ["nat = nat_plugin.cli:main", "nid = nid_plugin.cli:main"]},
)
