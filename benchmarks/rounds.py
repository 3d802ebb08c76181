"""Two rounds on each demo application: the second learns from votes on the first, and continues from its adapter.

    python benchmarks/rounds.py [--json] [--use tone] [--prompts 200]

Round one trains on the application's file, once briefly and once as in the demo recipe. Its replies to new prompts,
before and after, are voted on by the application's own measure, like a person who wants just that, and who writes a
better reply where both are bad. Round two trains on these votes alone, from round one's adapter. Everything is then
measured on further prompts from the same grammar, which nobody trained or voted on: the share of desired replies, for
the base model and after each round, and the win rate of each round against its start, with its 95 % interval. Both
sides sample with the same random numbers, so a sign test over the prompts that changed sides shows more clearly whether
the second round improves, holds, or loses.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from peft import PeftModel
from scipy.stats import binomtest

from dpo_hub.comparison.duet import Duet, Replies
from dpo_hub.comparison.tally import Tally
from dpo_hub.comparison.votes import Ballot, Choice, Vote, cast, make_ballot, preferences_of, votes_of
from dpo_hub.demo import FILES
from dpo_hub.demo.shop import FILE, USES, Use
from dpo_hub.jobs.worker import work
from dpo_hub.preferences import read_preferences, text_of
from dpo_hub.preferences.pairs import Messages
from dpo_hub.recipe import Recipe
from dpo_hub.runs.run import Run
from dpo_hub.training.policy import load_base, quiet
from dpo_hub.training.train import train

TEMPERATURE, MAX_NEW_TOKENS = 0.7, 160
EPOCHS = (0.6, 2.0)
"""Epochs of the first round: few, which leave much to learn, and the demo recipe's, which leave next to nothing."""


@dataclass(frozen=True)
class Judged:
    """Replies on both sides, judged by the measure: the shares of desired replies, and the wins."""

    before: float
    after: float
    votes: Tally


def vote(use: Use, ballot: Ballot, better: str) -> Vote:
    """Vote by the measure; where both replies are bad, write the *better* one."""
    prompt = text_of(ballot.prompt)
    left, right = (use.is_preferred(prompt, reply) for reply in ballot.shown)
    choice: Choice = "left" if left > right else "right" if right > left else "tie" if left else "both_bad"
    return ballot.vote(choice, voter="the measure", edit=better if choice == "both_bad" else None)


def judged(use: Use, prompts: Sequence[Messages], replies: Sequence[Replies]) -> Judged:
    """Count the desired replies on both sides. Pairs of replies that the measure rates the same are ties."""
    texts = [text_of(prompt) for prompt in prompts]
    sides = [
        (use.is_preferred(text, r.before), use.is_preferred(text, r.after))
        for text, r in zip(texts, replies, strict=True)
    ]
    wins, losses = sum(a > b for b, a in sides), sum(b > a for b, a in sides)
    count = len(sides)
    return Judged(
        sum(b for b, _ in sides) / count,
        sum(a for _, a in sides) / count,
        Tally(wins, losses, count - wins - losses, 0),
    )


def new_prompts(use: Use, count: int) -> dict[str, str]:
    """Distinct prompts of the grammar that are not in the application's file, each with a good reply."""
    rng, known = Random(20), {text_of(pair.prompt) for pair in read_preferences(FILES / f"{use.name}.csv").pairs}
    found: dict[str, str] = {}
    while len(found) < count:
        prompt, chosen, _ = use.pair(rng, FILE)
        if prompt not in known:
            found[prompt] = chosen
    return found


def ask(duet: Duet, prompts: Sequence[Messages]) -> list[Replies]:
    return duet.replies(prompts, temperature=TEMPERATURE, max_new_tokens=MAX_NEW_TOKENS)


def vote_on(run: Run, use: Use, prompts: Mapping[str, str]) -> int:
    """Vote on the replies to *prompts*, and save the votes as usual. Return how many there are."""
    asked, rng = [as_messages(prompt) for prompt in prompts], Random(0)
    for prompt, both in zip(asked, ask(Duet.open(run), asked), strict=True):
        if ballot := make_ballot(prompt, both.before, both.after, rng=rng):
            cast(run, vote(use, ballot, prompts[text_of(prompt)]))
    return len(votes_of(run))


def as_messages(prompt: str) -> Messages:
    return [{"role": "user", "content": prompt}]


@torch.inference_mode()
def same_logits(run: Run, trained: PeftModel, prompts: Sequence[Messages]) -> bool:
    """Whether the saved adapter, on the base model alone, gives the same logits as at the end of training."""
    base, tokenizer = load_base(run.recipe.model)
    alone = PeftModel.from_pretrained(base, run.adapter).eval()
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(list(prompt), return_tensors="pt", return_dict=True)
        if not torch.equal(alone(**ids).logits, trained.eval()(**ids).logits):
            return False
    return True


def two_rounds(use: Use, epochs: float, count: int) -> dict[str, Any]:
    """Train for *epochs*, vote on *count* new prompts, train again, and measure on as many others."""
    began, new = time.perf_counter(), new_prompts(use, 2 * count)
    prompts, to_vote_on = [*map(as_messages, new)][:count], dict([*new.items()][count:])
    first = work(Run.create(read_preferences(FILES / f"{use.name}.csv"), Recipe.for_model(epochs=epochs)))
    one = judged(use, prompts, ask(Duet.open(first), prompts))
    votes = vote_on(first, use, to_vote_on)
    pairs = preferences_of(votes_of(first))
    second = Run.create(pairs, first.recipe.next_round(), previous=first)
    trained = train(second)
    two = judged(use, prompts, ask(Duet.of(trained.model, trained.tokenizer), prompts))
    return {
        "use": use.name,
        "epochs": epochs,
        "prompts": count,
        "shares": {"base": one.before, "round one": one.after, "round two": two.after},
        "win_rate": {"round one": _win_rate(one.votes), "round two": _win_rate(two.votes)},
        "changed": {"better": two.votes.after, "worse": two.votes.before, "p": _sign_test(two.votes)},
        "votes": votes,
        "pairs": len(pairs.pairs),
        "same_logits": same_logits(second, trained.model, prompts[:5]),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _win_rate(votes: Tally) -> list[float]:
    return [round(figure, 3) for figure in (votes.win_rate, *votes.interval)]


def _sign_test(votes: Tally) -> float:
    """The probability of a split at least as uneven if both sides are equally good."""
    changed = votes.after + votes.before
    return round(float(binomtest(votes.after, changed).pvalue), 3) if changed else 1.0


def main() -> None:
    """Run the requested applications."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--use", action="append", choices=USES, help="only this one; may be repeated")
    parser.add_argument("--prompts", type=int, default=200, help="new prompts to vote on, and as many to measure on")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    quiet()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DPO_HUB_HOME"] = folder
        for name in args.use or USES:
            for epochs in EPOCHS:
                cases.append(two_rounds(USES[name], epochs, args.prompts))
                if not args.json:
                    tell(cases[-1])
    if args.json:
        print(json.dumps({"cases": cases}, indent=2))


def tell(case: dict[str, Any]) -> None:
    """Print one case on a line."""
    shares = " → ".join(f"{share:.1%}" for share in case["shares"].values())
    rates = (f"{of} wins {r:.0%} ({low:.0%} to {high:.0%})" for of, (r, low, high) in case["win_rate"].items())
    rates = [*rates, "{better} prompts for the better, {worse} for the worse (p = {p:.2g})".format(**case["changed"])]
    logits = "the same logits" if case["same_logits"] else "OTHER LOGITS"
    print(f"{case['use']}, {case['epochs']:g} epochs at first: as wanted {shares} of {case['prompts']}; ", end="")
    print(f"{'; '.join(rates)}; {case['votes']} votes, {case['pairs']} pairs; {logits} on the base alone; ", end="")
    print(f"{case['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
