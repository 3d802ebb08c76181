"""Loads the base model and its tokenizer from any source. Knows nothing of training or of runs."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateError

from ..errors import DPOHubError, ModelError, explaining_disk_full, needing_extra
from ..recipe import DEMO_MODEL, SMOLLM2
from ..runs.base_model import EMBEDDED, is_gguf, local_path
from . import gguf, smollm2

with needing_extra("train"):
    if "LOCAL_RANK" not in os.environ:
        # TRL rejects torch's DataParallel, which transformers uses when one process sees several devices.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    import torch
    from datasets.utils import disable_progress_bars
    from huggingface_hub.constants import HF_HOME
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )
    from transformers.utils import logging as transformers_logging
    from transformers.utils.peft_utils import find_adapter_config_file

    from .matmul import choose_matmul
    from .processes import LOCAL_RANK

log = logging.getLogger(__name__)

REFERENCE_ADAPTER = "ref"
"""TRL's name for the adapter that a policy started from."""
UNALTERED = {"do_sample": True} | dict.fromkeys(
    (
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "repetition_penalty",
        "no_repeat_ngram_size",
    )
)
"""Arguments that make `generate` sample from π itself, whatever the model's generation config says."""
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
"""For base models without a chat template of their own."""


def quiet() -> None:
    """Silence the libraries' progress bars, hints and deprecations; call it only from a program's entry point."""
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    gguf.quiet()
    disable_progress_bars()
    warnings.simplefilter("ignore", FutureWarning)


@contextmanager
def explaining_template_errors() -> Iterator[None]:
    """Turn a chat template's rejection of messages into a `ModelError`."""
    try:
        yield
    except TemplateError as error:
        raise ModelError(
            f"The base model's chat template refuses these messages: {error}. Some take no system message, for example."
        ) from error


def device() -> torch.device:
    """The device to train and to chat on: CUDA if there is one, else the CPU."""
    return torch.device("cuda", LOCAL_RANK) if torch.cuda.is_available() else torch.device("cpu")


def dtype() -> torch.dtype:
    """bfloat16 on CUDA, float32 on the CPU."""
    return torch.bfloat16 if device().type == "cuda" else torch.float32


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer that can pad and has a chat template: a plain one if the model has none."""
    if is_gguf(Path(source)):
        tokenizer: Any = gguf.read_tokenizer(Path(source))
    else:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        log.warning(
            "%s has no chat template: a plain one (User: … Assistant: …) is used and saved with the adapter.", source
        )
        tokenizer.chat_template = PLAIN_TEMPLATE
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_base_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the base model *name*; see `load_base`.

    Raises:
        ModelError: it does not exist, or cannot be reached.
    """
    with explaining_load_errors(name):
        return load_tokenizer(_source(name))


def _source(name: str) -> str | Path:
    """Where the base model *name* is loaded from: a folder, a GGUF file, or a Hub id."""
    if name == DEMO_MODEL:
        return EMBEDDED
    return smollm2.folder() if name == SMOLLM2 else local_path(name) or name


def origin_of(name: str) -> dict[str, str]:
    """Return the GGUF file that the weights of *name* were read from and their type in it; empty for other sources."""
    if name == SMOLLM2:
        return dict(smollm2.ORIGIN)
    place = local_path(name)
    return {"file": place.name, "type": gguf.kind(place)} if place and is_gguf(place) else {}


@contextmanager
def explaining_load_errors(name: str) -> Iterator[None]:
    """Turn errors while loading the model *name* into a `ModelError`."""
    try:
        with explaining_disk_full(HF_HOME):
            yield
    except DPOHubError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(_load_problem(name, error)) from error


def load_base(name: str, *, load_in_4bit: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model *name* onto the device, and its tokenizer: `demo`, `smollm2`, a folder, GGUF file or Hub id.

    With *load_in_4bit* its weights are kept as 4-bit NormalFloats with double quantisation (Dettmers et al. 2023).

    Code from a model repository is never run.

    Raises:
        ModelError: it does not exist, cannot be reached, or is not for text generation; or 4 bits without CUDA.
        MissingExtraError: 4 bits without bitsandbytes.
    """
    quantised = _four_bits() if load_in_4bit else {}
    tokenizer = load_base_tokenizer(name)
    model = _load(name, dtype=dtype(), **quantised)
    if device().type == "cpu":
        choose_matmul(model.num_parameters())
    return model if quantised else cast(Any, model).to(device()), tokenizer


@contextmanager
def as_reference(policy: PeftModel) -> Iterator[None]:
    """Make *policy* compute its reference within the context: the adapter that it started from, or the base model."""
    if REFERENCE_ADAPTER not in policy.peft_config:
        with policy.disable_adapter():
            yield
        return
    policy.set_adapter(REFERENCE_ADAPTER)
    try:
        yield
    finally:
        policy.set_adapter("default")


def load_to_merge(name: str) -> PreTrainedModel:
    """Load the base model *name* into main memory, in the dtypes in which it was saved.

    Raises:
        ModelError: as `load_base`.
    """
    return _load(name, dtype="auto")


def end_tokens(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[str]:
    """The model's end tokens that its chat template writes after a reply, or its first end token if it writes none."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    listed = ids if isinstance(ids, list) else [ids]
    names = [cast(str, tokenizer.convert_ids_to_tokens(one)) for one in listed if one is not None]
    ends = list(dict.fromkeys(name for name in [cast(Any, tokenizer).eos_token, *names] if name))
    exchange = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    with explaining_template_errors():
        text = str(tokenizer.apply_chat_template(exchange, tokenize=False))
    return [end for end in ends if end in text.rpartition("!")[2]] or ends[:1]


def _load(name: str, **how: Any) -> PreTrainedModel:
    _require_no_adapter(name)
    with explaining_load_errors(name):
        source = _source(name)
        if is_gguf(Path(source)):
            loaded = gguf.read_model(Path(source), **how)
        else:
            load: Any = AutoModelForCausalLM.from_pretrained  # its type omits what output_loading_info returns
            loaded = load(source, trust_remote_code=False, output_loading_info=True, **how)
    model, loading_info = cast(tuple[Any, dict[str, Any]], loaded)
    if missing := sorted(loading_info["missing_keys"]):
        raise ModelError(
            f"The base model {name} has no weights for {missing[0]} and {len(missing) - 1} more: it was not made to "
            "write text. Take one for text generation."
        )
    return cast(PreTrainedModel, model)


def _require_no_adapter(name: str) -> None:
    """Reject an adapter: its config names a base model, which would be loaded instead, from any folder on this machine.

    On a Space that folder could be another visitor's.
    """
    with explaining_load_errors(name):
        source = Path(_source(name))
        found = find_adapter_config_file(str(source.parent if is_gguf(source) else source))
    if found is not None and is_gguf(source):
        raise ModelError(f"An adapter lies beside {name}, and would be loaded with it. Give the file its own folder.")
    if found is not None:
        raise ModelError(f"{name} is an adapter, and not a base model. Name the model that it was trained on.")


def _four_bits() -> dict[str, Any]:
    if device().type != "cuda":
        raise ModelError("A base model in 4 bits needs a CUDA device, and there is none. Leave out --load-in-4bit.")
    with needing_extra("4bit"):
        import bitsandbytes  # noqa: F401  # transformers' own error would be less clear
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype(),
    )
    return {"quantization_config": config, "device_map": {"": device()}}


def _load_problem(name: str, error: Exception) -> str:
    """Explain in a sentence or two why *name* did not load."""
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(name).is_dir():
        return f"The folder {name} holds no model with weights and tokenizer ({said})."
    if "gated" in str(error).lower():
        return f"The base model {name} is gated. Accept its terms at https://huggingface.co/{name}, then: hf auth login"
    return (
        f"The base model {name} cannot be loaded: there is no such folder, and the Hub does not have it or cannot be "
        f"reached ({said.rstrip('.')}). Check the name; 'demo' is the one that needs no download."
    )
