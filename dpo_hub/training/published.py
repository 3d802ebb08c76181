"""The part of publishing that loads models, in a process of its own so that the caller need not load torch.

    python -m dpo_hub.training.published compare RUN_FOLDER DOWNLOADED_FOLDER
    python -m dpo_hub.training.published merge RUN_FOLDER TARGET_FOLDER

Comparing prints a JSON list of booleans, one per prompt; merging prints the fields of `merged.Check`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..errors import DPOHubError, needing_extra
from ..preferences.pairs import Messages
from ..runs.run import Run
from .logits import logits_of, prompts_of
from .memory import is_out_of_memory
from .merged import merge
from .policy import load_base, load_tokenizer, quiet

with needing_extra("train"):
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def compare(run: Run, downloaded: Path) -> list[bool]:
    """Return for each of a few prompts whether the adapter in *downloaded* gives exactly the logits of the run's own.

    The base model is loaded once; each adapter is applied to it, with the tokenizer saved beside the adapter.

    Raises:
        ModelError: the base model cannot be loaded, or its chat template rejects the prompts.
    """
    recipe = run.recipe
    prompts = prompts_of(run)
    base, _ = load_base(recipe.model, load_in_4bit=recipe.load_in_4bit)
    own = _logits(base, run.adapter, prompts)
    theirs = _logits(base, downloaded, prompts)
    pairs = zip(own, theirs, strict=True)
    return [torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True) for one, other in pairs]


def _logits(base: PreTrainedModel, adapter: Path, prompts: Sequence[Messages]) -> list[torch.Tensor]:
    """The result of `logits_of` for *adapter* on *base*; *base* is left unchanged."""
    model = PeftModel.from_pretrained(base, adapter).eval()
    found = logits_of(model, load_tokenizer(adapter), prompts)
    model.unload()
    return found


def main() -> None:
    """Run the command; an expected error prints one line on stderr and exits with code 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("compare", "merge"))
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    quiet()
    try:
        if given.what == "merge":
            print(json.dumps(asdict(merge(Run(given.run), given.folder))))
        else:
            print(json.dumps(compare(Run(given.run), given.folder)))
    except DPOHubError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print("The base model does not fit into the memory that is free.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
