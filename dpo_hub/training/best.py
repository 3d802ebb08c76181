"""The best held-out point of a run so far, kept on disk: the adapter's weights, the step, the held-out loss.

Knows nothing of how training works or of a run's other files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import needing_extra

with needing_extra("train"):
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file, save_file

POINT = "point.json"


@dataclass(frozen=True)
class Best:
    """The point with the lowest held-out loss; of two equal ones, the earlier."""

    step: int
    loss: float

    @property
    def weights(self) -> str:
        """The file name. It contains the step, so that `point.json`, replaced last, always names a complete file."""
        return f"adapter-{self.step}.safetensors"


def best_of(folder: Path) -> Best | None:
    """The point saved in *folder*, if there is one."""
    path = folder / POINT
    return Best(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def keep_best(folder: Path, policy: PeftModel, measured: Mapping[str, Any]) -> None:
    """Save *policy*'s adapter in *folder* if the *measured* held-out loss is finite and lower than all before."""
    before, now = best_of(folder), Best(int(measured["step"]), float(measured["loss"]))
    if not math.isfinite(now.loss) or (before and before.loss <= now.loss):
        return
    folder.mkdir(exist_ok=True)
    weights = get_peft_model_state_dict(policy, save_embedding_layers=False)
    _replace(folder / now.weights, lambda aside: save_file({k: v.contiguous() for k, v in weights.items()}, aside))
    _replace(folder / POINT, lambda aside: aside.write_text(json.dumps(asdict(now)), encoding="utf-8"))
    for old in folder.glob("*.safetensors"):
        if old.name != now.weights:
            old.unlink()


def _replace(path: Path, write: Any) -> None:
    aside = path.with_name(f".{path.name}")
    write(aside)
    aside.replace(path)


def restore_best(folder: Path, policy: PeftModel) -> Best | None:
    """Load the adapter saved in *folder* into *policy*; return its point, or None if there is none."""
    best = best_of(folder)
    if best:
        set_peft_model_state_dict(policy, load_file(folder / best.weights))
    return best
