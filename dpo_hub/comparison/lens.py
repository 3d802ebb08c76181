"""The adapter as a reward model: the reward of each reply and of each of its tokens. Knows nothing of files.

The reward is DPO's implicit one, β·(log π(y|x) − log π_ref(y|x)) (Rafailov et al. 2023, section 4), a sum over the
reply's tokens. Tokenisation and log-probabilities are the same as in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice, pairwise
from math import fsum
from typing import Any

from jinja2 import TemplateError

from ..errors import ModelError, needing_extra
from ..preferences.doctor.model_checks import common_prefix
from ..preferences.pairs import Messages
from ..preferences.replies import Question
from ..preferences.table import Unreadable
from ..recipe import SHARED_PREFIX, Recipe
from ..runs.run import Run
from ..training.memory import LOADING, explaining_out_of_memory
from ..training.policy import REFERENCE_ADAPTER, as_reference, explaining_template_errors, load_base

with needing_extra("train"):
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from ..training.shared_prefix import shared_prefix
    from ..training.shared_prefix.plan import IGNORE_INDEX

WINDOW = 512
"""Questions tokenised at a time, so that replies of similar length or to the same prompt share a batch."""
BATCH_TOKENS = 8192
"""The most tokens in a batch, including padding; a longer row is a batch by itself."""
NO_ROOM = "a prompt that fills max_length"


@dataclass(frozen=True)
class Reading:
    """A reply's tokens, including its end token, and the reward of each, in units of β·nats.

    The tokens joined are the reply as the chat template renders it. If a character spans several tokens, the first has
    it and the others are empty. `cut` says that `max_length` truncated the reply.
    """

    tokens: tuple[str, ...]
    rewards: tuple[float, ...]
    cut: bool = False

    @property
    def reward(self) -> float:
        return fsum(self.rewards)


@dataclass(frozen=True)
class _Row:
    """A prompt and a reply as token ids; the reply begins at *begin*, and *tokens* has the text of its tokens."""

    ids: list[int]
    begin: int
    tokens: tuple[str, ...]
    cut: bool


@dataclass(frozen=True)
class Lens:
    """A policy with its reference, and the recipe that trained it."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    recipe: Recipe

    @classmethod
    def open(cls, run: Run) -> Lens:
        """Load the base model and adapter of a finished run.

        Raises:
            RunError: the run has not finished.
            ModelError: its base model cannot be loaded.
        """
        recipe = run.require_finished().recipe
        with explaining_out_of_memory(LOADING):
            base, tokenizer = load_base(recipe.model, load_in_4bit=recipe.load_in_4bit)
            model = PeftModel.from_pretrained(base, run.adapter)
            if run.reference:
                model.load_adapter(run.reference, adapter_name=REFERENCE_ADAPTER)
        model.eval()
        if recipe.engine != SHARED_PREFIX:
            from ..training.trainer import add_head

            add_head(model)
        return cls(model, tokenizer, recipe)

    def rewards(self, prompt: str | Messages, replies: Sequence[str | Messages]) -> list[Reading]:
        """Score each of *replies* to *prompt*, texts or messages, in order.

        Raises:
            ModelError: the prompt fills `max_length`, the chat template rejects the messages, or memory is full.
        """
        (found,) = self.score(
            [Question(_as_messages(prompt, "user"), [_as_messages(reply, "assistant") for reply in replies])]
        )
        if isinstance(found, Unreadable):
            raise ModelError(f"The replies cannot be read because of {found}.")
        return found

    def rank(
        self, prompt: str | Messages, candidates: Sequence[str | Messages]
    ) -> list[tuple[str | Messages, Reading]]:
        """Score *candidates* and sort them, best first."""
        read = zip(candidates, self.rewards(prompt, candidates), strict=True)
        return sorted(read, key=lambda both: -both[1].reward)

    def score(self, questions: Iterable[Question | Unreadable]) -> Iterator[list[Reading] | Unreadable]:
        """Score each question's replies, for any number of questions; yield the reason for those that cannot be scored.

        As in training, the replies of a question count from the first token at which one of them differs from the
        prompt, and are truncated at `max_length`.
        """
        remaining = iter(questions)
        while window := list(islice(remaining, WINDOW)):
            tokenised = [self._tokenised(asked) if isinstance(asked, Question) else asked for asked in window]
            rows = [row for found in tokenised if not isinstance(found, Unreadable) for row in found]
            readings = iter(self._measured(rows))
            for found in tokenised:
                yield found if isinstance(found, Unreadable) else list(islice(readings, len(found)))

    def token_rewards(self, written: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The reward of each token of each reply, for prompts and replies given as token ids, in units of β·nats.

        Raises:
            ModelError: the device's memory is full.
        """
        rows = [_Row([*prompt, *reply], len(prompt), (), False) for prompt, reply in written]
        return [list(reading.rewards) for reading in self._measured(rows)]

    def length(self, prompt: Messages) -> int:
        """The number of tokens of *prompt*, including the generation prompt."""
        template: Any = self.tokenizer.apply_chat_template
        with explaining_template_errors():
            return len(template([dict(m) for m in prompt], add_generation_prompt=True, return_dict=True)["input_ids"])

    def _tokenised(self, question: Question) -> list[_Row] | Unreadable:
        prompt, limit = [dict(message) for message in question.prompt], self.recipe.max_length
        template: Any = partial(
            self.tokenizer.apply_chat_template, tools=list(question.tools) or None, **question.chat_template_kwargs
        )
        try:
            asked = template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
            whole = [self._with_text(template, prompt + [dict(m) for m in reply]) for reply in question.replies]
        except (TemplateError, TypeError, ValueError) as error:
            return Unreadable(f"messages that the chat template refuses ({error})")
        shared = min((common_prefix(asked, ids) for ids, _ in whole), default=len(asked))
        begin = max(1, shared)  # nothing predicts the very first token
        if begin >= limit:
            return Unreadable(NO_ROOM)
        return [_Row(ids[:limit], begin, tuple(text[begin:limit]), len(ids) > limit) for ids, text in whole]

    def _with_text(self, template: Any, messages: list[dict[str, Any]]) -> tuple[list[int], list[str]]:
        """The tokens of a conversation, and the part of its text that each covers."""
        if not self.tokenizer.is_fast:
            ids = template(messages, return_dict=True)["input_ids"]
            return ids, [str(self.tokenizer.decode([token])) for token in ids]
        encoded = template(messages, return_dict=True, tokenizer_kwargs={"return_offsets_mapping": True})
        text = template(messages, tokenize=False)
        ends = accumulate((end for _, end in encoded["offset_mapping"]), max, initial=0)
        return encoded["input_ids"], [text[start:end] for start, end in pairwise(ends)]

    @torch.no_grad()
    def _measured(self, rows: list[_Row]) -> list[Reading]:
        readings: dict[int, Reading] = {}
        with explaining_out_of_memory("Shorten the longest prompts or replies."):
            for places in self._batches(rows):
                batch = [rows[place] for place in places]
                difference = self._log_probs(batch)
                with as_reference(self.model):
                    difference -= self._log_probs(batch)
                worth = (self.recipe.beta * difference).tolist()
                for place, row, figures in zip(places, batch, worth, strict=True):
                    own = figures[row.begin - 1 : len(row.ids) - 1]
                    readings[place] = Reading(row.tokens, tuple(own), row.cut)
        return [readings[place] for place in range(len(rows))]

    def _batches(self, rows: list[_Row]) -> Iterator[list[int]]:
        """Indices of rows for each batch: sorted by prefix if shared prefixes save work, else by length."""
        shares = self.recipe.engine == SHARED_PREFIX
        batch: list[int] = []
        for place in sorted(range(len(rows)), key=lambda at: rows[at].ids if shares else [len(rows[at].ids)]):
            longest = max(len(rows[other].ids) for other in [*batch, place])
            if batch and longest * (len(batch) + 1) > BATCH_TOKENS:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _log_probs(self, rows: list[_Row]) -> torch.Tensor:
        """Log π of each token after the first under the model as it is: [rows, tokens − 1], zero outside replies."""
        width = max(len(row.ids) for row in rows)
        pad, where = int(self.tokenizer.pad_token_id), self.model.device

        def tensor(lists: Iterable[list[int]], filler: int) -> torch.Tensor:
            return torch.tensor([[*given, *[filler] * (width - len(given))] for given in lists], device=where)

        alike = shared_prefix(self.model) if self.recipe.engine == SHARED_PREFIX else nullcontext()
        with alike, torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
            scored: Any = self.model(
                input_ids=tensor((row.ids for row in rows), pad),
                attention_mask=tensor(([1] * len(row.ids) for row in rows), 0),
                labels=tensor(([IGNORE_INDEX] * row.begin + row.ids[row.begin :] for row in rows), IGNORE_INDEX),
                use_cache=False,
                fused_lm_head=True,
            )
        log_probs: torch.Tensor = scored.log_probs
        return log_probs.double()


def _as_messages(part: str | Messages, role: str) -> Messages:
    return [{"role": role, "content": part}] if isinstance(part, str) else part
