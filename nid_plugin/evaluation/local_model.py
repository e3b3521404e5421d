"""A model in a Hugging Face folder answers questions in batches, by transformers' ``generate``."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from nid_plugin.causal_lm.source import (
    ADAPTER_CONFIG_FILE,
    fingerprint,
    load_weights,
    local_folder,
    positions,
    read_config,
)
from nid_plugin.completion.results import Result
from nid_plugin.completion.settings import Request, RequestSettings
from nid_plugin.evaluation.formats import CHAT, Precision
from nid_plugin.evaluation.local_prompts import LocalPrompts, tokenizer_of
from nid_plugin.evaluation.sampling import RowSampling, seed_of
from plugin_common.errors import UserError
from plugin_common.hf_folder import first_line, quiet_transformers

ADAPTER_WEIGHTS = "adapter_model.safetensors"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalOptions:
    """How a model in a folder answers.

    Attributes:
        model: its folder, or a name on the model hub.
        adapter: peft's folder of an adapter; None for none. Its tokenizer and chat template, where it has them, hold.
        precision: of the weights; None is bf16 on a GPU and fp32 elsewhere.
        device: ``cuda``, ``cpu``, …; None takes a GPU where there is one.
        batch_size: questions at once.
        seed: of sampling.
        pair_format: ``chat`` (the tokenizer's chat template), ``plain`` or ``template``; see ``nid_plugin.formatting``.
        template: file, for ``template``.
    """

    model: str
    adapter: str | None = None
    precision: Precision | None = None
    device: str | None = None
    batch_size: int = 8
    seed: int = 1
    pair_format: str = CHAT
    template: str | None = None


class LocalModel:
    """A causal LM that answers requests; see :meth:`request_settings` for what its answers depend on.

    Args:
        options: see there.
        max_tokens: longest answer.
        sampling: ``temperature``, ``top_p`` and ``stop`` for all requests.
        system: system prompt, for chats.

    Raises:
        UserError: what keeps the folder, the adapter or the template from use.
    """

    def __init__(
        self, options: LocalOptions, *, max_tokens: int, sampling: dict[str, Any], system: str | None = None
    ) -> None:
        from plugin_common import compat

        compat.hide_broken_torchaudio()
        import torch

        self.options, self._max_tokens, self._sampling, self._system = options, max_tokens, sampling, system
        self.device = usable_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision: Precision = options.precision or ("bf16" if self.device.startswith("cuda") else "fp32")
        self.folder = local_folder(options.model)
        self.config = read_config(self.folder)
        if options.adapter is not None:
            check_adapter(options.adapter)
        self.tokenizer = tokenizer_of(self.folder, options.adapter)
        self._prompts = LocalPrompts(
            self.tokenizer,
            f"--model {options.model}",
            self.folder,
            pair_format=options.pair_format,
            template=options.template,
            system=system,
        )
        self._room = positions(self.config) - max_tokens
        if self._room < 2:
            most = positions(self.config)
            raise UserError(
                f"--max-tokens {max_tokens}: leaves no room for a prompt, the model reads {most} tokens; give less"
            )
        self._model: Any = None

    def request_settings(self) -> RequestSettings:
        """All that decides an answer, as a ledger notes it and as ids are made from."""
        adapter = self.options.adapter
        how = {
            "precision": self.precision,
            "seed": self.options.seed,
            "pair_format": self.options.pair_format,
            "template": None if self.options.template is None else _sha256(Path(self.options.template)),
            "adapter": None if adapter is None else adapter_fingerprint(Path(adapter)),
            "prompts": self._prompts.fingerprint,
        }
        return RequestSettings(
            model=f"folder {fingerprint(self.folder)}",
            system=self._system,
            max_tokens=self._max_tokens,
            sampling=self._sampling,
            extra=how,
        )

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without special ones."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, request: Request) -> list[int]:
        """The tokens that ask for an answer; a prompt that is too long loses its beginning, which is logged."""
        ids = self._prompts.ids(request)
        if len(ids) > self._room:
            log.warning(
                "a prompt of %d tokens is too long for the model's %d and --max-tokens %d: %d tokens of its beginning "
                "are left out (it ends in %r)",
                len(ids), positions(self.config), self._max_tokens, len(ids) - self._room, request.text[-40:],
            )  # fmt: skip
        return self._prompts.shortened(ids, self._room)

    def answers(self, requests: Sequence[Request]) -> Iterator[list[Result]]:
        """Answer requests, batch by batch, the longest prompts first (too little memory shows at once)."""
        prompts = sorted(((self.prompt_ids(request), request) for request in requests), key=lambda item: -len(item[0]))
        for begin in range(0, len(prompts), self.options.batch_size):
            batch = prompts[begin : begin + self.options.batch_size]
            yield self._answer([ids for ids, _ in batch], [request for _, request in batch])

    def _answer(self, prompts: list[list[int]], requests: list[Request]) -> list[Result]:
        import torch

        model, begun = self._loaded(), monotonic()
        inputs, mask = _left_padded(prompts, self._prompts.end_ids[0], self.device)
        stop = self._sampling.get("stop")
        words = {"stop_strings": stop, "tokenizer": self.tokenizer} if stop else {}
        processors = [self._row_sampling(requests)]
        try:
            with torch.inference_mode(), quiet_transformers():
                output = model.generate(inputs, attention_mask=mask, logits_processor=processors, **words)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the GPU's memory is too small for {len(prompts)} questions of up to {inputs.shape[1]} tokens; "
                f"give a --batch-size below {self.options.batch_size} (what is answered stays)"
            ) from error
        seconds = round((monotonic() - begun) / len(requests), 3)
        return [
            self._result(request, ids, row, seconds)
            for request, ids, row in zip(requests, prompts, output[:, inputs.shape[1] :].tolist(), strict=True)
        ]

    def _row_sampling(self, requests: Sequence[Request]) -> RowSampling:
        temperatures = [float(request.sampling.get("temperature", 0.0)) for request in requests]
        seeds = [seed_of(self.options.seed, request.id) for request in requests]
        return RowSampling(temperatures, seeds, self._sampling.get("top_p", 1.0))

    def _result(self, request: Request, prompt: list[int], generated: list[int], seconds: float) -> Result:
        ends = set(self._prompts.end_ids)
        length = next((place for place, token in enumerate(generated) if token in ends), len(generated))
        whole = self._prompts.text(generated[:length])
        text = _before(whole, self._sampling.get("stop") or ())
        stopped = length < len(generated) or len(generated) < self._max_tokens or text != whole
        text = text.strip()  # as FastChat does
        return Result(
            id=request.id,
            status="done" if text else "empty",
            completion=text,
            finish_reason="stop" if stopped else "length",
            usage={"prompt_tokens": len(prompt), "completion_tokens": length},
            model=self.options.model,
            seconds=seconds,
            cost=0.0,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _loaded(self) -> Any:
        if self._model is None:
            import torch
            from transformers import GenerationConfig

            dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[self.precision]
            model: Any = load_weights(self.folder, self.config, dtype=dtype, attention="sdpa")
            if self.options.adapter is not None:
                model = with_adapter(model, self.options.adapter)
            # The folder's own sampling settings and penalties do not apply.
            model.generation_config = GenerationConfig(
                do_sample=False,
                max_new_tokens=self._max_tokens,
                eos_token_id=self._prompts.end_ids,
                pad_token_id=self._prompts.end_ids[0],
            )
            self._model = model.to(self.device).eval()
        return self._model


def usable_device(name: str) -> str:
    """The device's name.

    Raises:
        UserError: torch knows no such device, or it cannot be used here.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise UserError(f"--device {name}: cannot be used here ({first_line(error)}); give cuda, cpu, …") from error
    return name


def with_adapter(model: Any, adapter: str) -> Any:
    """The model with a peft adapter in it.

    Raises:
        UserError: the folder is no adapter, or one of another base model.
    """
    check_adapter(adapter)
    with quiet_transformers():
        from peft import PeftModel

        try:
            return PeftModel.from_pretrained(model, adapter, use_safetensors=True).get_base_model()
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"--adapter {adapter}: does not fit the model ({first_line(error)})") from error


def check_adapter(adapter: str) -> None:
    """Complain where a folder is no peft adapter.

    Raises:
        UserError: lists what is missing.
    """
    names = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS)
    if missing := [name for name in names if not (Path(adapter) / name).is_file()]:
        raise UserError(
            f"--adapter {adapter}: {' and '.join(missing)} missing; expected a folder that `nid export` or peft wrote"
        )


def adapter_fingerprint(folder: Path) -> str:
    """What tells an adapter from another: SHA-256 of its weights and settings, but for its base model's place."""
    check_adapter(str(folder))
    try:
        settings = json.loads((folder / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8"))
        settings.pop("base_model_name_or_path", None)
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder / ADAPTER_CONFIG_FILE}: not an adapter's settings ({error})") from error
    form = json.dumps(settings, sort_keys=True) + _sha256(folder / ADAPTER_WEIGHTS)
    return hashlib.sha256(form.encode()).hexdigest()[:32]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _left_padded(prompts: list[list[int]], pad: int, device: str) -> tuple[Any, Any]:
    """Token ids [B, S] and the mask [B, S] that is 0 where a row is padded."""
    import torch

    width = max(map(len, prompts))
    inputs = torch.full((len(prompts), width), pad, dtype=torch.int64)
    mask = torch.zeros_like(inputs)
    for row, ids in enumerate(prompts):
        inputs[row, width - len(ids) :] = torch.tensor(ids)
        mask[row, width - len(ids) :] = 1
    return inputs.to(device), mask.to(device)


def _before(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the strings that end it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]
