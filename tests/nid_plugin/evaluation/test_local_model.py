"""A model in a folder answers: as transformers' own ``generate`` does, whatever the batch, and nothing is lost."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nid_plugin.completion.settings import Request
from nid_plugin.evaluation.local_model import LocalModel, LocalOptions, adapter_fingerprint
from plugin_common.errors import UserError
from tests.toy_causal_lm import make_causal_lm

TEXTS = [
    "the river runs",
    "why?",
    "music makes our old town happy and its people sing",
    "small birds in green trees 日本",
]


@pytest.fixture(scope="module")
def folder(once: Callable[..., Path]) -> Path:
    return once("answering-model", lambda path: make_causal_lm(path / "m", seed=2)) / "m"


def local(folder: Path, max_tokens: int = 12, sampling: dict[str, Any] | None = None, **options: Any) -> LocalModel:
    system = options.pop("system", None)
    return LocalModel(
        LocalOptions(str(folder), **options), max_tokens=max_tokens, sampling=sampling or {}, system=system
    )


def request(text: str, number: int = 0, temperature: float = 0.0, earlier: tuple[str, ...] = ()) -> Request:
    messages = tuple(zip(["user", "assistant"] * len(earlier), earlier, strict=False))
    return Request(f"{number:032x}", text, (*messages, ("user", text)), {"temperature": temperature})


def answers(model: LocalModel, requests: list[Request]) -> dict[str, str]:
    return {result.id: result.completion for batch in model.answers(requests) for result in batch}


def greedy(folder: Path, model: LocalModel, asked: Request, max_tokens: int = 12) -> str:
    """What transformers itself answers to the same prompt."""
    from transformers import AutoModelForCausalLM

    own = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([model.prompt_ids(asked)])
    out = own.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens, pad_token_id=0
    )
    new = [token for token in out[0, ids.shape[1] :].tolist() if token != model.tokenizer.eos_token_id]
    return str(model.tokenizer.decode(new, skip_special_tokens=True)).strip()


def test_greedy_answers_are_those_of_generate_in_any_batch(folder: Path) -> None:
    requests = [request(text, number) for number, text in enumerate(TEXTS)]
    by_size = [answers(local(folder, batch_size=size), requests) for size in (1, 3, 8)]
    assert by_size[0] == by_size[1] == by_size[2] and len(set(by_size[0].values()) - {""}) == 4
    model = local(folder)
    for asked in requests:
        assert by_size[0][asked.id] == greedy(folder, model, asked)


def test_sampled_answers_depend_on_seed_and_request_alone(folder: Path) -> None:
    requests = [request(text, number, 0.7 * (number % 2)) for number, text in enumerate(TEXTS)]
    first = answers(local(folder, batch_size=4), requests)
    assert first == answers(local(folder, batch_size=2), requests)
    assert answers(local(folder), requests[1:2])[requests[1].id] == first[requests[1].id]  # a run that goes on
    other = answers(local(folder, seed=2), requests)
    assert [other[r.id] == first[r.id] for r in requests] == [True, False, True, False]


def test_chats_are_written_as_in_training_and_turns_by_the_template(folder: Path) -> None:
    from nid_plugin.formatting import Formatter, PairFormat

    model = local(folder)
    one = model.prompt_ids(request("the river"))
    assert one == Formatter(model.tokenizer, PairFormat("chat"), "m").prompt_ids(["the river"])[0]
    said = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "the river"}], tokenize=False, add_generation_prompt=True
    )
    assert one == model.tokenizer(said, add_special_tokens=False)["input_ids"]
    two = model.prompt_ids(request("why?", earlier=("the river", "sings")))
    text = model.tokenizer.decode(two)
    assert text == (
        "<s><|im_start|>user\nthe river<|im_end|>\n<|im_start|>assistant\nsings<|im_end|>\n"
        "<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    own = model.tokenizer.decode(local(folder, system="Be brief.").prompt_ids(request("why?")))
    assert own.startswith("<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nwhy?")


def test_plain_text_joins_turns_by_blank_lines(folder: Path, tmp_path: Path) -> None:
    asked = request("why?", earlier=("the river", "sings"))
    plain = local(folder, pair_format="plain")
    assert plain.tokenizer.decode(plain.prompt_ids(asked)) == "<s>the river\n\nsings\n\nwhy?"
    (tmp_path / "t.txt").write_text("Q: {prompt}\nA: {completion}\n", encoding="utf-8")
    template = local(folder, pair_format="template", template=str(tmp_path / "t.txt"))
    assert template.tokenizer.decode(template.prompt_ids(asked)).startswith("<s>Q: the river\n\nsings\n\nwhy?\nA:")
    assert plain.request_settings() != template.request_settings() != local(folder).request_settings()


def test_a_long_prompt_loses_its_beginning_and_that_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = local(folder, max_tokens=200, pair_format="plain")  # of 256 positions
    long = " ".join(["river"] * 100) + " and the town"
    with caplog.at_level(logging.WARNING):
        ids = model.prompt_ids(request(long))
    assert len(ids) == 56 and ids[0] == model.tokenizer.bos_token_id
    assert model.tokenizer.decode(ids[1:]).endswith("river and the town")
    assert "is too long for the model's 256" in caplog.text and "and the town" in caplog.text
    caplog.clear()
    assert len(model.prompt_ids(request("short"))) < 56 and not caplog.records


def test_an_answer_ends_at_the_end_token_or_a_stop_text(folder: Path) -> None:
    asked = request(TEXTS[0])
    (result,) = next(iter(local(folder, 30).answers([asked])))
    assert (result.finish_reason, result.usage["completion_tokens"]) == ("length", 30)
    middle = result.completion[len(result.completion) // 2 :][:3]
    (cut,) = next(iter(local(folder, 30, {"stop": [middle]}).answers([asked])))
    assert cut.completion == result.completion[: result.completion.index(middle)].strip()
    assert cut.finish_reason == "stop"


def test_end_tokens_of_the_generation_settings_count(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "m"
    shutil.copytree(folder, copy)
    model = local(copy)
    (result,) = next(iter(model.answers([request(TEXTS[1])])))
    assert result.finish_reason == "length"
    ids = model.tokenizer(result.completion, add_special_tokens=False)["input_ids"]
    settings = json.loads((copy / "generation_config.json").read_text(encoding="utf-8"))
    (copy / "generation_config.json").write_text(
        json.dumps(settings | {"eos_token_id": [settings["eos_token_id"], ids[-1]], "repetition_penalty": 9.0}),
        encoding="utf-8",
    )
    (ended,) = next(iter(local(copy).answers([request(TEXTS[1])])))
    assert ended.finish_reason == "stop" and result.completion.startswith(ended.completion)


def test_precision_and_adapter_are_part_of_the_settings(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    asked = request(TEXTS[0])
    plain = local(folder)
    adapted = local(folder, adapter=str(tmp_path / "adapter"))
    ids = torch.tensor([plain.prompt_ids(asked)])
    out = tuned.eval().generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
    expected = plain.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
    found = answers(adapted, [asked])[asked.id]
    assert found == expected != answers(plain, [asked])[asked.id]
    half = local(folder, precision="bf16")
    assert answers(half, [asked])[asked.id]
    assert len({str(model.request_settings()) for model in (plain, adapted, half)}) == 3
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    before = adapter_fingerprint(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "elsewhere"}), encoding="utf-8"
    )
    assert adapter_fingerprint(tmp_path / "adapter") == before  # where the base lay says nothing
    tokenizer = plain.tokenizer
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "")
    tokenizer.save_pretrained(tmp_path / "adapter")
    own = local(folder, adapter=str(tmp_path / "adapter"))
    assert own.tokenizer.decode(own.prompt_ids(request("why?"))) == "<s>user\nwhy?<|im_end|>\nassistant\n"
    assert own.request_settings() != adapted.request_settings()


def test_what_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--max-tokens 256: leaves no room for a prompt, the model reads 256 tokens"):
        local(folder, max_tokens=256)
    with pytest.raises(UserError, match="no such folder"):
        local(tmp_path / "none")
    with pytest.raises(UserError, match=r"--adapter .*adapter_config.json and adapter_model.safetensors missing"):
        local(folder, adapter=str(tmp_path))
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(UserError, match=rf"--device {device}: cannot be used here"):
            local(folder, device=device)
    silent = make_causal_lm(tmp_path / "silent", chat_template=False)
    with pytest.raises(UserError, match=r"has no chat template; give --pair-format plain"):
        local(silent)
    assert answers(local(silent, pair_format="plain"), [request("the river")])


def test_an_adapter_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    other = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    get_peft_model(other, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path / "adapter")
    model = local(folder, adapter=str(tmp_path / "adapter"))
    with pytest.raises(UserError, match=r"--adapter .*: does not fit the model"):
        answers(model, [request("the river")])
