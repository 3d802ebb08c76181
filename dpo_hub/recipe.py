"""What to train and how. The command-line options and the app's fields are derived from these fields."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import RecipeError

DEMO_MODEL = "demo"
"""The name of the base model that ships with the package."""
SMOLLM2 = "smollm2"
"""The name of SmolLM2-135M-Instruct with the weights pinned in `training.smollm2`."""

SORTING = ("aot", "aot_unpaired")
"""Losses that sort the pairs of a batch, so the batch size changes the loss."""
SMOOTHED = ("exo_pair", "robust", *SORTING)
"""Losses that support `label_smoothing`; the first two require it."""
DIFFERENCES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
"""Losses that support divergences other than the reverse KL: those of the reward difference, and `sft`."""
LOSS_TYPES = (*DIFFERENCES, "nca_pair", "bco_pair", "sppo_hard", *SORTING, "apo_zero", "apo_down")
DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
SHARED_PREFIX, TRL = ENGINES = ("shared-prefix", "trl")

STRENGTHS = {"gentle": (3.0, 0.5), "standard": (1.0, 1.0), "strong": (0.5, 2.0)}
"""How far a run may move from its base model: the factors applied to beta and to the learning rate."""

BY_PAIRS = ("batch_size", "epochs", "learning_rate")
"""Settings chosen from the number of pairs unless given explicitly."""
BATCHES, PASS = (8, 4, 2), 100
"""For a real base model: the possible batch sizes, and the number of updates that one epoch should reach."""
UPDATES, RATE, HIGHEST_RATE = 50, 2e-4, 3e-4
"""The number of updates that a run aims for, the learning rate for that number, and the maximum for fewer."""


def _setting(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Recipe:
    """All settings of a run. The same recipe on the same pairs gives the same adapter.

    The loss is DPO's, L = −log σ(β·[(log π − log π_ref)(chosen) − (log π − log π_ref)(rejected)]) (Rafailov et al.
    2023, equation 7), or the related loss named by `loss`, plus `sft_weight` times the mean negative log-likelihood of
    the chosen reply, which keeps the policy fluent.

    Raises:
        RecipeError: a setting is invalid or contradicts another; the message names it, its value and what to change.
    """

    model: str = _setting(DEMO_MODEL, "Base model: 'demo', 'smollm2', a Hub id, a folder, or a GGUF file.")
    beta: float = _setting(0.1, "How close the policy stays to the base model; higher is closer.", low=1e-4, high=10)
    loss: str = _setting("sigmoid", f"Preference loss: {', '.join(LOSS_TYPES)}.", choices=LOSS_TYPES)
    sft_weight: float = _setting(1.0, "Weight of the likelihood of chosen replies beside it.", low=0, high=10)
    label_smoothing: float = _setting(
        0.0, "Share of labels taken to be wrong: robust (0.1), exo_pair (0.001), aot.", low=0, high=0.49
    )
    f_divergence: str = _setting(
        "reverse_kl", f"What keeps the policy close: {', '.join(DIVERGENCES)}.", choices=DIVERGENCES
    )
    f_alpha: float = _setting(0.5, "The α of alpha_divergence.", low=0, high=10)
    discopop_tau: float = _setting(0.05, "Temperature of the loss discopop.", low=1e-4, high=10)
    use_weighting: bool = _setting(False, "Weigh pairs by how likely the policy would write them (WPO).")
    # `for_model` chooses the rate by the number of pairs; this one is for a recipe made without it
    learning_rate: float = _setting(1e-4, "Peak learning rate.", low=0, high=1)
    epochs: float = _setting(1.0, "Passes over the training pairs.", low=0.01, high=100)
    batch_size: int = _setting(8, "Pairs in a batch, on all devices together.", low=1, high=4096)
    accumulation: int = _setting(1, "Batches whose gradients are averaged before an update.", low=1, high=4096)
    lora_r: int = _setting(16, "Rank of the LoRA adapter.", low=1, high=1024)
    lora_alpha: int = _setting(32, "Scale of the LoRA adapter; twice the rank is usual.", low=1, high=4096)
    max_length: int = _setting(1024, "Longest prompt and reply together, in tokens.", low=8, high=1_000_000)
    held_out: float = _setting(0.1, "Share of prompts kept aside to measure with.", low=0.001, high=0.9)
    engine: str = _setting(
        SHARED_PREFIX, f"What computes log-probabilities: {' or '.join(ENGINES)}, which is slower.", choices=ENGINES
    )
    activation_checkpointing: bool = _setting(
        False, "Compute activations twice instead of keeping them: slower, with less memory."
    )
    load_in_4bit: bool = _setting(False, "Keep the base model in 4 bits (QLoRA); needs CUDA and bitsandbytes.")
    force: bool = _setting(False, "Go on even where preflight says that the run will certainly fail.")
    checkpoint_minutes: float = _setting(5.0, "Minutes between two checkpoints.", low=0, high=1e6)
    checkpoint_steps: int = _setting(0, "Steps between two checkpoints, 0 to go by time alone.", low=0, high=10**9)
    evaluations: int = _setting(5, "Times that held-out pairs are measured while it trains.", low=0, high=100)
    auto_stop: bool = _setting(False, "Stop when training goes wrong, and keep the best held-out point.")
    seed: int = _setting(0, "Seed of everything random.", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, low, high = getattr(self, setting.name), setting.metadata["low"], setting.metadata["high"]
            if low is not None and not low <= value <= high:
                raise RecipeError(f"{setting.name} is {value}; it must lie between {low:g} and {high:g}.")
            if setting.type == "bool" and not isinstance(value, bool):
                raise RecipeError(f"{setting.name} is {value!r}; it must be true or false.")
            if (choices := setting.metadata["choices"]) and value not in choices:
                raise RecipeError(f"{setting.name} is {value!r}; it must be one of {', '.join(choices)}.")

        if self.auto_stop and not self.evaluations:
            raise RecipeError("auto_stop decides by interim evaluations, and evaluations is 0. Give it 1 or more.")
        for contradiction, told in self._contradictions():
            if contradiction:
                raise RecipeError(told)

    def _contradictions(self) -> Iterator[tuple[bool, str]]:
        """Combinations that TRL rejects, or accepts and then ignores."""
        loss, smoothing = self.loss, self.label_smoothing
        yield (
            loss in ("exo_pair", "robust") and not smoothing,
            f"The loss {loss} needs label_smoothing above 0; {0.001 if loss == 'exo_pair' else 0.1} is usual.",
        )
        yield (
            bool(smoothing) and loss not in SMOOTHED,
            f"label_smoothing is {smoothing}, but the loss {loss} has none. Drop it or take {', '.join(SMOOTHED)}.",
        )
        yield (
            self.f_divergence != "reverse_kl" and loss not in DIFFERENCES,
            f"f_divergence is {self.f_divergence}, and the loss {loss} knows reverse_kl only. "
            f"Take one of {', '.join(DIFFERENCES)}.",
        )
        yield (
            self.f_alpha != 0.5 and self.f_divergence != "alpha_divergence",
            f"f_alpha is {self.f_alpha}, and f_divergence is {self.f_divergence}. Make that alpha_divergence.",
        )
        yield (
            self.discopop_tau != 0.05 and loss != "discopop",
            f"discopop_tau is {self.discopop_tau}, and the loss is {loss}. Make that discopop.",
        )
        yield (
            self.use_weighting and loss in SORTING,
            f"use_weighting weighs pairs, and the loss {loss} takes them apart. Take another loss.",
        )
        yield (
            self.use_weighting and (self.sft_weight > 0 or loss == "sft"),
            "use_weighting cannot weigh the likelihood of chosen replies. Make sft_weight 0, and the loss another.",
        )
        yield (
            loss == "sft" and self.sft_weight > 0,
            f"The loss sft is what sft_weight, {self.sft_weight}, would add to it. Make sft_weight 0.",
        )

    @classmethod
    def for_model(cls, model: str | None = None, *, pairs: int | None = None, **settings: Any) -> Recipe:
        """The default recipe for *model* and a file of *pairs* pairs, overridden by those *settings* that are not None.

        The embedded model is the default. With few pairs, a real base model gets smaller batches and more than one
        epoch; the fewer the updates, the higher the learning rate. The measurements are in docs/decisions.md.
        """
        overrides = {name: value for name, value in settings.items() if value is not None}
        if model is None or model == DEMO_MODEL:
            return replace(DEMO_RECIPE, **overrides)
        recipe = cls(model=model, **overrides)
        if pairs is None:
            return recipe
        trained = pairs * (1 - recipe.held_out)
        if not overrides.keys() & {"batch_size", "accumulation"}:
            recipe = replace(recipe, batch_size=_usual_batch(trained))
        epochs = overrides.get("epochs", _usual_epochs(trained / recipe.effective_batch_size))
        updates = epochs * trained / recipe.effective_batch_size
        return replace(recipe, epochs=epochs, learning_rate=overrides.get("learning_rate", _usual_rate(updates)))

    @property
    def effective_batch_size(self) -> int:
        """The number of pairs per update."""
        return self.batch_size * self.accumulation

    def at_strength(self, strength: str) -> Recipe:
        """The same recipe at one of `STRENGTHS`: a small change that stays close to the base model, or a large one."""
        beta, rate = STRENGTHS[strength]
        return replace(self, beta=self.beta * beta, learning_rate=self.learning_rate * rate)

    def next_round(self, **settings: Any) -> Recipe:
        """The recipe of a run that continues from this one's adapter, overridden by those *settings* that are not None.

        The learning rate is divided by ten: a fresh adapter's B is zero, so at first only B learns, and slowly; in a
        trained adapter A and B move together. It runs one epoch, since much of the data has been learnt already.
        The measurements are in docs/decisions.md.

        Raises:
            RecipeError: a given setting conflicts with the existing adapter.
        """
        overrides = {name: value for name, value in settings.items() if value is not None}
        for name in ("model", "lora_r", "lora_alpha"):
            if overrides.get(name, getattr(self, name)) != getattr(self, name):
                raise RecipeError(
                    f"{name} is {overrides[name]}, and the adapter to go on from has {getattr(self, name)}. "
                    "Leave it out."
                )
        return replace(self, **{"learning_rate": self.learning_rate / 10, "epochs": 1.0, "force": False} | overrides)

    def per_process(self, processes: int) -> Recipe:
        """The recipe for each of several processes, so that together they see the same number of pairs per update.

        Raises:
            RecipeError: the pairs of an update cannot be divided evenly.
        """
        if self.batch_size % processes == 0 and (processes == 1 or self.loss not in SORTING):
            return replace(self, batch_size=self.batch_size // processes)
        if self.accumulation % processes == 0:
            return replace(self, accumulation=self.accumulation // processes)
        raise RecipeError(
            f"{processes} devices cannot share batches of {self.batch_size} pairs, {self.accumulation} to an update, "
            f"evenly. Make {'accumulation' if self.loss in SORTING else 'batch_size'} a multiple of {processes}."
        )

    def with_less_memory(self) -> Recipe | None:
        """The same recipe with lower memory use and the same pairs per update, or None if it cannot be lowered more."""
        if self.batch_size > 1 and self.loss not in SORTING:
            parts = next(n for n in range(2, self.batch_size + 1) if self.batch_size % n == 0)
            return replace(self, batch_size=self.batch_size // parts, accumulation=self.accumulation * parts)
        return None if self.activation_checkpointing else replace(self, activation_checkpointing=True)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def read(cls, path: Path, **settings: Any) -> Recipe:
        """The recipe that an earlier run saved at *path*, overridden by those *settings* that are not None.

        Raises:
            RecipeError: the file is not a recipe, or a setting is invalid.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(**found | {name: value for name, value in settings.items() if value is not None})
        except (ValueError, TypeError) as error:
            raise RecipeError(f"{path} is not the recipe.json of a run: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        return cls(**json.loads(text))


def _usual_batch(trained: float) -> int:
    """The batch size for *trained* training pairs: the largest one that gives an epoch enough updates."""
    return next((size for size in BATCHES if trained / size >= PASS), BATCHES[-1])


def _usual_epochs(updates: float) -> float:
    """The number of epochs, if one epoch makes *updates* updates: enough to reach `UPDATES`, but at most three."""
    return float(min(3, max(1, math.ceil(UPDATES / max(updates, 1)))))


def _usual_rate(updates: float) -> float:
    """The peak learning rate for *updates* updates, to two significant digits: it falls with their square root."""
    return float(f"{min(HIGHEST_RATE, RATE * math.sqrt(UPDATES / max(updates, 1))):.1e}")


DEMO_RECIPE = Recipe(beta=1.0, sft_weight=5.0, learning_rate=4e-3, epochs=2.0, batch_size=16, held_out=0.2)
"""For the embedded model: tiny, so it learns fast and forgets fast. The experiments are in docs/decisions.md."""
