"""Open, check and save Hugging Face masked-LM folders.

A *PMLM folder* is such a folder whose embedding rows stand in fairseq dictionary order (``<s> <pad> </s> <unk>``, the
kept pieces, ``<mask>``), together with that dictionary as ``dict.txt``.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, MASK, read_dictionary, write_dictionary
from plugin_common.errors import UserError, raise_all
from plugin_common.masked_lm_families import FAMILIES, MaskedLMFamily, check_supported, family_of
from plugin_common.whole_folder import whole_folder

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
DICTIONARY_FILE = "dict.txt"
PROVENANCE_FILE = "pmlm.json"
PMLM_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, DICTIONARY_FILE)
MAKE_IT = "make a PMLM folder with `nat prepare-pmlm --pmlm FOLDER-OR-NAME --corpus FILE … --output DIR`"


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' load reports and bars off the terminal; what matters in them is raised or logged by us."""
    from plugin_common import compat

    compat.hide_broken_torchaudio()
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, bars, hub_verbosity = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        hub_logging.get_verbosity(),
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


def read_config(folder: str | Path) -> "PretrainedConfig":
    """The model configuration of a local folder; nothing else in it is read.

    Raises:
        UserError: no such folder, no ``config.json``, invalid JSON, or values that transformers cannot take.
    """
    path = Path(folder) / CONFIG_FILE
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; {MAKE_IT}")
    if not path.is_file():
        raise UserError(f"{folder}: {CONFIG_FILE} is missing; {MAKE_IT}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: invalid JSON ({error.msg}); {MAKE_IT}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; {MAKE_IT}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise UserError(f"{path}: the entry `model_type` is missing; expected one of {', '.join(FAMILIES)}")
    with quiet_transformers():
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:
            check_supported(content["model_type"], str(folder))
            raise UserError(
                f"{path}: transformers cannot use it as a {content['model_type']!r} configuration "
                f"({first_line(error)}); {MAKE_IT}"
            ) from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, for quoting in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_pmlm_folder(folder: str | Path) -> None:
    """Check that a folder is a complete PMLM folder whose parts fit together; weights are not loaded.

    Raises:
        UserError: lists every problem found: missing files, a foreign architecture, ``dict.txt`` malformed (with line
            numbers), or numbers of rows, dictionary entries and tokenizer ids that do not match.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: no such folder; {MAKE_IT}")
    problems: list[str] = []
    missing = [name for name in PMLM_FILES if not (root / name).is_file()]
    if missing:
        problems.append(f"{folder} lacks {', '.join(missing)}; {MAKE_IT}")

    def attempt(name: str, function: Any, *args: Any) -> Any:
        if name in missing:
            return None
        try:
            return function(*args)
        except UserError as error:
            problems.append(str(error))
            return None

    config = attempt(CONFIG_FILE, read_config, root)
    family = attempt(CONFIG_FILE, family_of, config, str(folder)) if config is not None else None
    entries = attempt(DICTIONARY_FILE, read_dictionary, root / DICTIONARY_FILE)
    ids = attempt(TOKENIZER_FILE, _tokenizer_ids, root / TOKENIZER_FILE)
    rows = attempt(WEIGHTS_FILE, embedding_rows, root / WEIGHTS_FILE, family) if family is not None else None
    if entries is not None:
        symbols = [*FAIRSEQ_SYMBOLS, *(symbol for symbol, _ in entries)]
        problems += _symbol_problems(root, symbols, ids)
        problems += _row_problems(root, len(symbols), rows, None if family is None else config.vocab_size)
    raise_all(problems)


def _symbol_problems(root: Path, symbols: Sequence[str], ids: Mapping[str, int] | None) -> list[str]:
    problems = []
    if symbols[-1] != MASK:
        problems.append(f"{root / DICTIONARY_FILE}: the last entry must be {MASK}, found {symbols[-1]!r}")
    if ids is None:
        return problems
    different = [row for row, symbol in enumerate(symbols) if ids.get(symbol) != row]
    if different:
        row = different[0]
        problems.append(
            f"{root}: {TOKENIZER_FILE} and {DICTIONARY_FILE} disagree on {len(different)} of {len(symbols)} symbols, "
            f"first on {symbols[row]!r}: row {row} of the dictionary, id {ids.get(symbols[row])} of the tokenizer; "
            f"both files must come from one run of `nat prepare-pmlm`"
        )
    elif len(ids) != len(symbols):
        problems.append(
            f"{root}: {TOKENIZER_FILE} has {len(ids)} symbols, {DICTIONARY_FILE} (with fairseq's 4) {len(symbols)}"
        )
    return problems


def _row_problems(root: Path, symbols: int, rows: int | None, vocab_size: int | None) -> list[str]:
    problems = []
    if rows is not None and rows != symbols:
        problems.append(
            f"{root}: {WEIGHTS_FILE} has {rows} embedding rows, but {DICTIONARY_FILE} has {symbols - 4} entries "
            f"({symbols} with fairseq's 4); both files must come from one run of `nat prepare-pmlm`"
        )
    if vocab_size is not None and rows is not None and vocab_size != rows:
        problems.append(f"{root}: {CONFIG_FILE} says vocab_size {vocab_size}, {WEIGHTS_FILE} has {rows} embedding rows")
    return problems


def _tokenizer_ids(path: Path) -> dict[str, int]:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"{path}: not a tokenizer file ({first_line(error)}); {MAKE_IT}") from error


def embedding_rows(path: Path, family: MaskedLMFamily) -> int:
    """Rows of the input embedding in a safetensors file; only the file's header is read.

    Raises:
        UserError: the file is damaged or holds no such tensor.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as tensors:
            if family.embedding not in tensors.keys():  # noqa: SIM118 (not a mapping)
                raise UserError(f"{path}: the tensor {family.embedding} is missing; {MAKE_IT}")
            return int(tensors.get_slice(family.embedding).get_shape()[0])
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({first_line(error)}); {MAKE_IT}") from error


def load_masked_lm(folder_or_name: str | Path, dtype: "torch.dtype | None" = None) -> "PreTrainedModel":
    """A masked LM with its head, in evaluation mode; ``dtype`` defaults to float32.

    A folder is read without network access; another name is looked up in the local cache of the model hub, then on it.

    Raises:
        UserError: nothing to be found under that name, weights missing or damaged, or a foreign architecture.
    """
    model, missing = load_with_missing(folder_or_name, dtype)
    if missing:
        raise UserError(
            f"{folder_or_name}: its weights lack {', '.join(missing)}; give a complete masked LM, or make a PMLM "
            f"folder with `nat prepare-pmlm --init-missing-head`"
        )
    return model


def load_with_missing(
    folder_or_name: str | Path, dtype: "torch.dtype | None" = None
) -> tuple["PreTrainedModel", list[str]]:
    """Like :func:`load_masked_lm`, but hands back the names of absent tensors (left at their random initial values)."""
    local = Path(folder_or_name).is_dir()
    config = read_config(folder_or_name) if local else None
    if local and (Path(folder_or_name) / "adapter_config.json").exists():
        raise UserError(
            f"{folder_or_name}: holds an adapter (adapter_config.json), expected a whole model; merge it first"
        )
    if config is not None:
        family_of(config, str(folder_or_name))
    elif looks_like_path(str(folder_or_name)):
        raise UserError(f"{folder_or_name}: no such folder; give a masked-LM folder or a model name of the hub")
    with quiet_transformers():
        import torch
        from transformers import AutoConfig, AutoModelForMaskedLM

        try:
            if config is None:
                config = AutoConfig.from_pretrained(str(folder_or_name), trust_remote_code=False)
                family_of(config, str(folder_or_name))
            model, info = AutoModelForMaskedLM.from_pretrained(
                str(folder_or_name),
                dtype=dtype if dtype is not None else torch.float32,
                local_files_only=local,
                trust_remote_code=False,
                attn_implementation="sdpa",
                output_loading_info=True,
            )
        except UserError:
            raise
        except Exception as error:
            raise explain_source_error(folder_or_name, error) from error
    return model.eval(), sorted(info["missing_keys"])


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path (model names are ``name`` or ``owner/name``)."""
    return name.startswith(("/", ".", "~")) or name.endswith("/") or name.count("/") > 1


def explain_source_error(folder_or_name: str | Path, error: Exception) -> UserError:
    """What transformers could not load, told so that the user can act on it."""
    if Path(folder_or_name).is_dir():
        return UserError(
            f"{folder_or_name}: cannot be loaded as a masked LM ({first_line(error)}); expected {CONFIG_FILE}, "
            f"{WEIGHTS_FILE} (or pytorch_model.bin) and the tokenizer's files"
        )
    return UserError(
        f"{folder_or_name}: there is no such folder here, and it could not be loaded from the model hub "
        f"({first_line(error)}); check the name, or fetch the model on a machine with access and give its folder"
    )


def check_output_folder(folder: str | Path, *, overwrite: bool) -> None:
    """Refuse an output path that would destroy something.

    Raises:
        UserError: the path is a file; the folder holds files and ``overwrite`` is not set, or is no PMLM folder.
    """
    path = Path(folder)
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"--output {folder}: is a file; give a folder that does not exist yet")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise UserError(f"--output {folder}: exists and is not empty; give another folder, or add --overwrite")
    if not all((path / name).is_file() for name in (CONFIG_FILE, DICTIONARY_FILE)):
        raise UserError(f"--output {folder}: --overwrite replaces PMLM folders only, and this is none")


def save_pmlm(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    entries: Sequence[tuple[str, int]],
    folder: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a PMLM folder: either it is there complete, or it lacks ``config.json`` or is not there.

    Args:
        model: masked LM with ``len(entries) + 4`` embedding rows.
        tokenizer: its ids are the rows.
        entries: ``dict.txt``: symbol and count of rows 4, 5, ….
        folder: replaced only if ``overwrite`` is set and it is a PMLM folder.
        provenance: written as ``pmlm.json``, for people; nothing reads it.

    Raises:
        UserError: see :func:`check_output_folder`; or the parts do not fit together.
    """
    check_output_folder(folder, overwrite=overwrite)
    with whole_folder(folder, marker=CONFIG_FILE, replaces=(lambda _: PMLM_FILES) if overwrite else None) as made:
        with quiet_transformers():
            model.save_pretrained(made, max_shard_size="1000GB")
            tokenizer.save_pretrained(made)
        _name_loader(made / TOKENIZER_CONFIG_FILE)
        write_dictionary(made / DICTIONARY_FILE, entries)
        if provenance is not None:
            write_json(made / PROVENANCE_FILE, provenance)
        for file in made.iterdir():  # safetensors writes for the owner alone; give all the rights that new files get
            file.chmod((made / DICTIONARY_FILE).stat().st_mode)
        check_pmlm_folder(made)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _name_loader(path: Path) -> None:
    """Let ``AutoTokenizer`` take tokenizer.json as it is.

    The classes named after architectures rebuild normaliser and pre-tokeniser from their own defaults instead, and the
    name that transformers 5 writes by itself is unknown to transformers 4.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    content["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(path, content)
