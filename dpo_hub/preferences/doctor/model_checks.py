"""Checks pairs against a base model's chat template and tokenizer, counting tokens as TRL's DPOTrainer does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from jinja2 import TemplateError

from ..pairs import PreferencePair
from .findings import Finding, Severity, Tally, of_all

_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError)
"""How a template rejects a pair: with its own error message, or because it cannot handle a turn."""
SHOWN_REFUSALS = 5
MANY = 0.1
"""If the length limit affects a larger share of the pairs than this, the limit is wrong, not just a few pairs."""


def examine_with(tokenizer: Any, pairs: Iterable[PreferencePair], max_length: int) -> list[Finding]:
    """Report which pairs the chat template rejects, and which are dropped or cut at *max_length* tokens.

    *tokenizer* is a transformers tokenizer with a chat template.
    """
    refused: defaultdict[str, Tally] = defaultdict(Tally)
    fates: defaultdict[str, Tally] = defaultdict(Tally)
    total = 0
    for pair in pairs:
        total += 1
        try:
            for fate in _outcomes(tokenizer, pair, max_length):
                fates[fate].add(pair.row)
        except _TEMPLATE_ERRORS as error:
            refused[str(error) or type(error).__name__].add(pair.row)
    return [*_refusals(refused, total), *_lengths(fates, total, max_length)]


def _outcomes(tokenizer: Any, pair: PreferencePair, max_length: int) -> Iterator[str]:
    """Name what happens to *pair*: `dropped`, `cut`, `alike`, or nothing."""
    messages = pair.messages
    prompt = messages["prompt"]
    apply = partial(tokenizer.apply_chat_template, tools=messages.get("tools"), **pair.chat_template_kwargs)
    whole = [prompt + messages["chosen"], prompt + messages["rejected"]]
    chosen, rejected = (apply(turns, tokenize=False) for turns in whole)
    if chosen != rejected and max(len(chosen.encode()), len(rejected.encode())) < max_length:
        return  # a token is at least one byte, and the prompt is never longer than the text that starts with it
    asked = apply(prompt, tokenize=True, return_dict=True, add_generation_prompt=True)["input_ids"]
    both = [apply(turns, tokenize=True, return_dict=True)["input_ids"] for turns in whole]
    if min(common_prefix(asked, ids) for ids in both) >= max_length:
        yield "dropped"
        return
    if max(map(len, both)) > max_length:
        yield "cut"
    if both[0][:max_length] == both[1][:max_length]:
        yield "alike"


def common_prefix(one: list[int], other: list[int]) -> int:
    """Return the number of leading tokens that both share."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _refusals(refused: Mapping[str, Tally], total: int) -> Iterator[Finding]:
    often = sorted(refused.items(), key=lambda item: -item[1].count)
    for told, tally in often[:SHOWN_REFUSALS]:
        yield tally.finding(
            "template-refuses",
            f"The base model's chat template refuses {of_all(tally.count, total)}: {told.rstrip('.')}.",
            "Remove or change those turns, or take another base model: training would stop at the first of them.",
            "high",
        )


def _lengths(fates: Mapping[str, Tally], total: int, max_length: int) -> Iterator[Finding]:
    tokens = f"max_length, {max_length:,} tokens"
    for fate, kind, says, advice in (
        (
            "dropped",
            "prompts-too-long",
            f"the prompt alone fills {tokens}, nothing is left of the replies, and training drops the pair",
            "Raise --max-length, or shorten these prompts.",
        ),
        (
            "cut",
            "replies-cut",
            f"prompt and reply are longer than {tokens}, and the end of the reply is cut off",
            "Raise --max-length where memory allows, for what is cut is not learnt.",
        ),
        (
            "alike",
            "replies-alike-to-the-model",
            f"chosen and rejected are the same once the chat template and {tokens}, are applied",
            "Remove these pairs or raise --max-length: there is nothing to learn from them.",
        ),
    ):
        if tally := fates.get(fate):
            share = of_all(tally.count, total)
            yield tally.finding(kind, f"In {share} {says}.", advice, _severity(tally.count, total))


def _severity(count: int, total: int) -> Severity:
    return "high" if count > MANY * total else "medium"
