"""From ``--pmlm`` (or a shape) and the dictionary to a configuration and weights, with every mismatch explained."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from torch import nn

from nat_plugin.models.ctc_pmlm import CtcPmlmConfig
from nat_plugin.models.masked_lm import MODEL_TYPES, MaskedLm, config_to_json, shape_config
from plugin_common import hf_folder
from plugin_common.errors import UserError, raise_all


def dictionary_digest(symbols: Sequence[str]) -> str:
    """SHA-256 of the symbols in order, as hexadecimal."""
    digest = hashlib.sha256()
    for symbol in symbols:
        digest.update(symbol.encode("utf-8", errors="surrogatepass") + b"\n")
    return digest.hexdigest()


def check_dictionary(symbols: Sequence[str], digest: str | None) -> None:
    """The dictionary of data-bin must be the one that a checkpoint was trained with."""
    if digest is not None and dictionary_digest(symbols) != digest:
        raise UserError(
            f"the dictionary of data-bin ({len(symbols)} symbols) is not the one that the checkpoint was trained with; "
            "give the data-bin of its training, or preprocess with `--srcdict` and `--tgtdict` set to its dict.txt"
        )


def fill_in(cfg: Any, symbols: Sequence[str]) -> None:
    """Complete the model's configuration, which fairseq saves, with what a checkpoint must carry."""
    from nat_plugin.models.presets import PRESETS

    preset = PRESETS.get(cfg._name)
    with open_dict(cfg):
        if preset is not None and HydraConfig.initialized():
            # fairseq-hydra-train knows no presets: they fill in what still has its general default.
            for name, value in preset.defaults.items():
                if name == "random_init" and cfg.pmlm is not None:
                    continue
                if cfg.get(name) == getattr(CtcPmlmConfig, name):
                    cfg[name] = value
        if preset is not None and preset.hub_name is not None and cfg.pmlm is None and not cfg.random_init:
            cfg.pmlm = preset.hub_name
        cfg.pmlm_config = configuration_json(cfg, symbols)
        cfg.dictionary_digest = dictionary_digest(symbols)


def configuration_json(cfg: Any, symbols: Sequence[str]) -> str:
    """The LM's configuration for a new model, as JSON.

    Args:
        cfg: a ``CtcPmlmConfig``.
        symbols: the data's dictionary, in order.

    Raises:
        UserError: no ``--pmlm`` where one is needed, a folder that is broken or foreign, a shape that is not the
            architecture's, or a dictionary that is not the folder's (the first differing symbol is named).
    """
    if "<mask>" not in symbols:
        raise UserError(
            "the dictionary of data-bin has no <mask>; make dict.txt with `nat prepare-pmlm` and pass it to "
            "fairseq-preprocess as --srcdict and --tgtdict"
        )
    if cfg.pmlm is None:
        return config_to_json(_config_by_shape(cfg, len(symbols)))
    config = _config_of_source(cfg.pmlm, "--pmlm")
    _check_preset_shape(cfg, config)
    _check_rows(cfg.pmlm, config, symbols, "--pmlm")
    return config_to_json(config)


def checked_config(pmlm: str, symbols: Sequence[str], *, option: str) -> Any:
    """The configuration of a PMLM folder (or name on the hub) whose rows are the dictionary's.

    Raises:
        UserError: a folder that is broken or foreign, or whose rows are others; ``option`` is named.
    """
    config = _config_of_source(pmlm, option)
    _check_rows(pmlm, config, symbols, option)
    return config


def load_weights(masked_lm: nn.Module, pmlm: str) -> None:
    """Copy the PMLM's weights into a model of its shape."""
    source = MaskedLm(hf_folder.load_masked_lm(pmlm))
    masked_lm.load_state_dict(source.state_dict(), strict=True)


def _config_by_shape(cfg: Any, vocab_size: int) -> Any:
    if not cfg.random_init:
        raise UserError(
            "--pmlm is missing: give a folder made by `nat prepare-pmlm`, or --random-init to start from random "
            "weights in the shape of --encoder-layers, --encoder-embed-dim, …"
        )
    if cfg.encoder_embed_dim % cfg.encoder_attention_heads:
        raise UserError(
            f"--encoder-embed-dim {cfg.encoder_embed_dim} is no multiple of --encoder-attention-heads "
            f"{cfg.encoder_attention_heads}"
        )
    return shape_config(
        str(cfg.pmlm_type),
        vocab_size=vocab_size,
        layers=cfg.encoder_layers,
        dim=cfg.encoder_embed_dim,
        ffn_dim=cfg.encoder_ffn_embed_dim,
        heads=cfg.encoder_attention_heads,
        positions=cfg.encoder_positions,
    )


def _config_of_source(pmlm: str, option: str) -> Any:
    if Path(pmlm).is_dir():
        hf_folder.check_pmlm_folder(pmlm)
        return hf_folder.read_config(pmlm)
    if hf_folder.looks_like_path(pmlm):
        raise UserError(f"{option} {pmlm}: no such folder; {hf_folder.MAKE_IT}")
    with hf_folder.quiet_transformers():
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(pmlm, trust_remote_code=False)
        except Exception as error:
            raise hf_folder.explain_source_error(f"{option} {pmlm}", error) from error


def _check_preset_shape(cfg: Any, config: Any) -> None:
    from nat_plugin.models.presets import PRESETS

    preset = PRESETS.get(getattr(cfg, "_name", None) or "")
    if preset is None or preset.hub_name is None:
        return
    found = {
        "pmlm_type": config.model_type,
        "encoder_layers": config.num_hidden_layers,
        "encoder_embed_dim": config.hidden_size,
        "encoder_attention_heads": config.num_attention_heads,
    }
    raise_all(
        f"--pmlm {cfg.pmlm}: {name} is {value}, but --arch {cfg._name} stands for {preset.shape[name]}; "
        "use --arch ctc_pmlm for a folder of any shape"
        for name, value in found.items()
        if value != preset.shape[name]
    )


def _check_rows(pmlm: str, config: Any, symbols: Sequence[str], option: str) -> None:
    named = f"{option} {pmlm}"
    if config.model_type not in MODEL_TYPES:
        raise UserError(f"{named}: architecture {config.model_type} is not one of {', '.join(MODEL_TYPES)}")
    dict_file = Path(pmlm) / "dict.txt"
    if dict_file.is_file():
        _check_same_symbols(pmlm, _symbols_of(dict_file), symbols, option)
    elif config.vocab_size != len(symbols):
        raise UserError(
            f"{named} has {config.vocab_size} rows, the dictionary of data-bin {len(symbols)} symbols; "
            f"run `nat prepare-pmlm --pmlm {pmlm} …` and use the folder that it writes, for its dict.txt too"
        )
    elif config.model_type in ("bert", "distilbert"):
        raise UserError(
            f"{named}: the rows of a {config.model_type} model do not stand in a fairseq dictionary's order; "
            f"run `nat prepare-pmlm --no-prune --pmlm {pmlm} …` and use the folder that it writes"
        )


def _check_same_symbols(pmlm: str, theirs: Sequence[str], ours: Sequence[str], option: str) -> None:
    if list(theirs) == list(ours):
        return
    row = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    there = theirs[row] if row < len(theirs) else "nothing"
    here = ours[row] if row < len(ours) else "nothing"
    advice = (
        "give a folder of the same vocabulary, usually the one that --pmlm names"
        if option == "--teacher"
        else f"preprocess with `--srcdict {pmlm}/dict.txt --tgtdict {pmlm}/dict.txt`"
    )
    raise UserError(
        f"{option} {pmlm}: its dict.txt ({len(theirs)} symbols) is not the dictionary of data-bin ({len(ours)} "
        f"symbols): the first difference is at row {row}, '{there}' there and '{here}' in data-bin; {advice}"
    )


def _symbols_of(dict_file: Path) -> list[str]:
    from fairseq.data import Dictionary

    return list(Dictionary.load(str(dict_file)).symbols)
