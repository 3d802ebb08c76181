"""Reads a GGUF file as a base model, dequantised to plain weights. Knows nothing of runs or of the Hub."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError, needing_extra
from .memory import is_out_of_memory

with needing_extra("train"):
    import transformers
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        modeling_gguf_pytorch_utils,
    )
    from transformers.utils import logging as transformers_logging
    from transformers.utils.quantization_config import GgufConfig


def quiet() -> None:
    """Hide the progress bars of reading a file; call it only from a program's entry point."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    reading: Any = modeling_gguf_pytorch_utils
    reading.tqdm = partial(reading.tqdm, disable=True)


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer in *file*, with its chat template if it has one.

    Raises:
        ModelError: the file is incomplete, or of a kind that Transformers cannot read.
        MissingExtraError: the package `gguf` is not installed.
    """
    with _explaining_errors(file):
        read = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)
        return cast(PreTrainedTokenizerBase, read)


def read_model(file: Path, **how: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Read the model in *file*, dequantised, and Transformers' loading info.

    The result is a model like any other: it can be trained, quantised again, and saved.

    Args:
        file: in GGUF.
        how: `dtype` and other keyword arguments of `from_pretrained`.

    Raises:
        ModelError: as `read_tokenizer`; or *how* asks for another quantisation.
        MissingExtraError: as `read_tokenizer`.
    """
    if "quantization_config" in how:
        raise ModelError(f"{file} is GGUF, which is read as plain weights and not in 4 bits. Leave out --load-in-4bit.")
    plain = GgufConfig(dequantize=True)
    with _explaining_errors(file):
        load: Any = AutoModelForCausalLM.from_pretrained
        model, loading_info = load(
            str(file.parent),
            gguf_file=file.name,
            quantization_config=plain,
            trust_remote_code=False,
            output_loading_info=True,
            **how,
        )
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        vars(model).pop(name, None)
    vars(model.config).pop("quantization_config", None)
    return model, loading_info


def kind(file: Path) -> str:
    """Return the type of most weights in *file*, for example `Q4_1`.

    Raises:
        ModelError, MissingExtraError: as `read_tokenizer`.
    """
    with _explaining_errors(file):
        sizes: Counter[str] = Counter()
        for tensor in _reader(file).tensors:
            sizes[tensor.tensor_type.name] += int(tensor.n_elements)
        return sizes.most_common(1)[0][0]


def _reader(file: Path) -> Any:
    with needing_extra("train"):
        from gguf import GGUFReader
    return GGUFReader(file)


@contextmanager
def _explaining_errors(file: Path) -> Iterator[None]:
    with needing_extra("train"):
        import gguf  # noqa: F401  # Transformers' own error would be less clear
    try:
        yield
    except (OSError, ValueError, LookupError, NotImplementedError, RuntimeError, struct.error) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(_problem_with(file, error)) from error


def _problem_with(file: Path, error: Exception) -> str:
    """Explain in a sentence or two why *file* was not read: it is broken, or Transformers does not know its kind."""
    try:
        architecture = _reader(file).fields["general.architecture"].contents()
    except (OSError, ValueError, LookupError) as broken:
        said = "" if isinstance(broken, LookupError | ValueError) else f" ({broken.strerror})"
        return f"The file {file} is torn, or no GGUF: it cannot be read to its end{said}. Fetch it again."
    said = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return (
        f"The GGUF file {file} has a model of the architecture {architecture}, which Transformers "
        f"{transformers.__version__} cannot read from GGUF ({said}). Take its original weights: a folder or a Hub id."
    )
