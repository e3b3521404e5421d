"""The model card of an exported folder: what it is, what it was made from, how to load it."""

import re

from nid_plugin.export.checkpoint import Trained

_FORMATS = {
    "plain": "the prompt as it stands, continued by the completion",
    "chat": "the tokenizer's chat template: the prompt is the user's turn, the completion the assistant's",
    "template": "a template of its own, which the chat template renders",
}


_HUB_NAME = re.compile(r"(?!\.)[\w.-]+(/[\w.-]+)?")


def model_card(trained: Trained, *, name: str, base: str, adapter: bool, end: str, about: str | None) -> str:
    """Markdown with the front matter that the hub reads.

    Args:
        trained: the checkpoint.
        name: of the model.
        base: what to call its base: a name on the hub, or a path.
        adapter: whether the folder holds adapters alone.
        end: the token that ends a completion.
        about: the user's own text on data, licence and purpose.
    """
    library = "peft" if adapter else "transformers"
    hub_base = [f"base_model: {base}"] if _HUB_NAME.fullmatch(base) else []
    front = ["---", f"library_name: {library}", "pipeline_tag: text-generation", *hub_base, "---"]
    told = about.strip() if about else "(Not told. `nid export --about FILE` puts a text here: data, teacher, licence.)"
    sections = [
        "\n".join(front),
        f"# {name}",
        "A causal language model fine-tuned to complete texts; the loss was that of the completions' tokens alone "
        "(non-instructional fine-tuning, arXiv 2409.00096).",
        "## Training data, licence, purpose\n\n" + told + "\n\nThe base's licence holds for this model too.",
        "## Load it\n\n" + (_load_adapter(base) if adapter else _load_whole()),
        "## Training\n\n" + _training(trained, base, end),
    ]
    return "\n\n".join(sections) + "\n"


def _load_adapter(base: str) -> str:
    return (
        "```python\nfrom peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```\n\n'
        f"With vLLM: `vllm serve {base} --enable-lora --lora-modules NAME=FOLDER`."
    )


def _load_whole() -> str:
    return (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```\n\nWith vLLM: `vllm serve FOLDER`.'
    )


def _training(trained: Trained, base: str, end: str) -> str:
    adapters = trained.adapters
    how = (
        "all weights"
        if adapters is None
        else f"LoRA, rank {adapters.rank}, alpha {adapters.alpha:g}, dropout {adapters.dropout:g}, on "
        f"{', '.join(adapters.targets)}"
    )
    rows = [
        ("base", f"`{base}`" + (f", fingerprint `{trained.fingerprint}`" if trained.fingerprint else "")),
        ("trained", how),
        ("updates", f"{trained.updates:,}"),
        ("format of pairs", f"{trained.pair_format.kind}: {_FORMATS[trained.pair_format.kind]}"),
        ("a completion ends with", f"`{end}`"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])
