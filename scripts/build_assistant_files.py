"""Write the assistant's preference files: prompts of ours, replies of SmolLM2's own, chosen and rejected by measures.

    python scripts/build_assistant_files.py CANDIDATES

CANDIDATES is a JSON Lines file of sampled replies; what is missing in it is sampled first, which takes about half an
hour on two cores. The same candidates give the same files. The prompts stand in `scripts/assistant/`.

What a pair's sides are made of: whole sentences from the beginning of a sampled reply, and where the model never shows
the wanted manner, a phrase of ours around them. Wherever length is not the point, both sides are about equally long.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from dpo_hub.demo.assistant import (
    BRAND_VOICE,
    BRIEF,
    CONCISENESS,
    FILES,
    GENERAL,
    HELPFULNESS,
    OPENING,
    SAFETY,
    SIGNATURE,
    TONE,
    Use,
    is_complete,
    is_warm,
    refuses,
    says_what_to_do,
    sentences,
    share_kept,
    words,
)

SOURCE = Path(__file__).parent / "assistant"
PLAIN, CALM, STEPS = "plain", "calm", "steps"
"""Replies as chats have them, at a low temperature, and with `ASK_FOR_STEPS`."""
ASK_FOR_STEPS = "Answer with two or three short steps. Begin each step with a verb."
COUNTS = {PLAIN: 2, CALM: 2, STEPS: 2}
NEW_TOKENS = {PLAIN: 112, CALM: 90, STEPS: 80}
TEMPERATURE = {PLAIN: 0.7, CALM: 0.3, STEPS: 0.7}
"""What is chosen is made of calm replies, which make more sense; what is rejected is what chats would show."""
PAIRS = 320
"""The most of a file."""
BATCH = 64
SHORT, LONG = 30, 55
"""The most words of a brief side, and of a long one."""
SIDE = 40
"""The most words of either side where length is not the point."""
NEAR = 6
"""Words by which the sides may then differ."""

_OF_ITSELF = re.compile(r"\b(?:I|I'm|I've|my|me)\b")
"""Where the model speaks of itself."""
_ADVICE = re.compile(
    r"^(?:.*?\b(?:you (?:can|could|should|might|may|must|will need to|need to|have to|want to)(?: also)?|"
    r"you'll need to|"
    r"try to|make sure to|be sure to|remember to|(?:important|essential|best|crucial|helpful|good idea|good) to)|"
    r"(?:First|Then|Next|Finally|Second|Also|And),?) (.+)$",
    re.IGNORECASE,
)
"""Where a sentence comes to what to do."""
THANKS = ("Thank you for asking!", "I'm glad you asked!", "That's a good question!", "I'm happy to help with that!")
SORRY = ("I'm sorry to hear that.", "That sounds frustrating, and I'm sorry.", "I'm so sorry about the trouble.")
WISHES = ("I hope that helps!", "Let me know how it goes!", "Good luck with it!", "Take care, and good luck!")
TROUBLE = ("my ", "i ", "i'", "our ", "the ", "something ", "someone ", "slugs ", "we ")
REFUSAL = "I'm sorry, but I can't help with that."
REASONS = (
    "It could hurt somebody, and it may be against the law.",
    "Other people would be harmed by it. I'm glad to help with something safe.",
    "It would not be fair to the people it affects.",
    "It is not safe. Ask me about a safe and honest way, and I will gladly help.",
    "Please talk to the people concerned, or to somebody you trust.",
)
"""How a refusal goes on. They all begin alike, so that there is one manner of refusing to learn."""


class Pair(NamedTuple):
    """A row of a preference file."""

    prompt: str
    chosen: str
    rejected: str


Candidates = Mapping[tuple[str, str], Sequence[str]]
"""Sampled replies by (prompt, kind)."""


def beginning(text: str, most: int) -> str:
    """The whole sentences that *text* begins with, of *most* words together, but none that announces the next."""
    kept: list[str] = []
    for sentence in sentences(text):
        if not is_complete(sentence) or words(" ".join([*kept, sentence])) > most:
            break
        kept.append(sentence)
    while kept and kept[-1].startswith(("Here", "Let's", "First,")):
        kept.pop()
    return " ".join(kept)


def about_as_long(options: Iterable[str], chosen: str) -> str | None:
    """The option whose number of words is the nearest to that of *chosen*, if it is near."""
    near = sorted(options, key=lambda option: abs(words(option) - words(chosen)))
    return near[0] if near and abs(words(near[0]) - words(chosen)) <= NEAR else None


def lengths_of(text: str) -> Iterator[str]:
    """Each beginning of *text* that is made of whole sentences, up to `SIDE` words and a few more."""
    seen = {beginning(text, most) for most in range(8, SIDE + 2 * NEAR)}
    yield from sorted(seen - {""})


def concise(prompt: str, candidates: Candidates) -> Pair | None:
    """The shortest beginning that still names what was asked about, against the longest reply."""
    short = [part for reply in candidates[prompt, CALM] if words(part := beginning(reply, SHORT)) >= 5]
    long = max((beginning(reply, LONG) for reply in candidates[prompt, PLAIN]), key=words)
    if not short or words(long) <= BRIEF:
        return None
    best = max(short, key=lambda part: (not _OF_ITSELF.search(part), share_kept(prompt, part), -words(part)))
    return Pair(prompt, best, long) if share_kept(prompt, best) > 0 else None


def dressed(
    before: Callable[[str], str], after: Callable[[str], str], wanted: Callable[[str, str], bool]
) -> Callable[[str, Candidates], Pair | None]:
    """How pairs are made of a plain reply, and of another one between an opening and an ending of ours."""

    def make(prompt: str, candidates: Candidates) -> Pair | None:
        body = beginning(candidates[prompt, CALM][0].replace("!", "."), SIDE - 10)
        plain = [part for reply in candidates[prompt, PLAIN] for part in lengths_of(reply) if not wanted(prompt, part)]
        if words(body) < 8 or not plain:
            return None
        chosen = f"{before(prompt)} {body} {after(prompt)}"
        rejected = about_as_long(plain, chosen)
        return Pair(prompt, chosen, rejected) if rejected and wanted(prompt, chosen) else None

    return make


def one_of(phrases: Sequence[str], prompt: str) -> str:
    """One of *phrases*, always the same for a prompt."""
    return random.Random(prompt).choice(phrases)


def warm_opening(prompt: str) -> str:
    trouble = prompt.lower().startswith(TROUBLE) and not prompt.lower().startswith(("i want", "i need", "i'd like"))
    return one_of(SORRY if trouble else THANKS, prompt)


def helpful(prompt: str, candidates: Candidates) -> Pair | None:
    """Two pieces of the model's own advice, each said as what to do, against a beginning as long that has none."""
    replies = [*candidates[prompt, CALM], *candidates[prompt, STEPS], *candidates[prompt, PLAIN]]
    parts = [part for reply in candidates[prompt, PLAIN] for part in lengths_of(reply)]
    idle = [part for part in parts if not any(_tells(sentence) for sentence in sentences(part))]
    advice = dict.fromkeys(step for reply in replies for sentence in sentences(reply) if (step := _step(sentence)))
    best = sorted(advice, key=lambda step: (-share_kept(prompt, step), words(step)))
    for first, second in combinations(best[:6], 2):
        chosen = f"{first} Then {second[0].lower()}{second[1:]}"
        rejected = about_as_long(idle, chosen)
        if rejected and says_what_to_do(prompt, chosen) and not _stutters(chosen):
            return Pair(prompt, chosen, rejected)
    return None


def _tells(sentence: str) -> bool:
    return says_what_to_do("", f"{sentence} {sentence}")


def _stutters(text: str) -> bool:
    """Whether three words in a row come again."""
    said = text.lower().split()
    threes = list(zip(said, said[1:], said[2:], strict=False))
    return len(set(threes)) < len(threes)


def _step(sentence: str) -> str:
    """What *sentence* advises to do, as an order, or nothing."""
    found = _ADVICE.match(sentence)
    step = found[1] if found else sentence
    step = step[0].upper() + step[1:]
    fits = 5 <= words(step) <= SIDE // 2 and is_complete(step) and not _OF_ITSELF.search(step)
    return step if fits and _tells(step) else ""


def safe(unsafe: bool, prompt: str, candidates: Candidates) -> Iterator[Pair]:
    """A refusal against each sampled answer where *unsafe*; where not, one answer against a refusal."""
    refusals = [f"{REFUSAL} {reason}" for reason in random.Random(prompt).sample(REASONS, len(REASONS))]
    for reply in candidates[prompt, PLAIN] if unsafe else candidates[prompt, CALM][:1]:
        answers = [part for part in lengths_of(reply) if not refuses(part)]
        near = ((refusal, about_as_long(answers, refusal)) for refusal in refusals)
        if found := next(((refusal, answer) for refusal, answer in near if answer), None):
            yield Pair(prompt, *(found if unsafe else found[::-1]))


MAKERS: Mapping[Use, Callable[[str, Candidates], Pair | None]] = {
    CONCISENESS: concise,
    TONE: dressed(warm_opening, partial(one_of, WISHES), is_warm),
    HELPFULNESS: helpful,
    BRAND_VOICE: dressed(lambda _: OPENING, lambda _: SIGNATURE, BRAND_VOICE.is_preferred),
}


def build(questions: Sequence[str], twins: Sequence[tuple[str, str]], candidates: Candidates) -> None:
    """Write each use's file, and copy the general prompts beside them."""
    FILES.mkdir(exist_ok=True)
    for use, make in MAKERS.items():
        _write(use, [pair for prompt in questions if (pair := make(prompt, candidates))])
    both = [(True, unsafe) for unsafe, _ in twins] + [(False, harmless) for _, harmless in twins]
    _write(SAFETY, [pair for unsafe, prompt in both for pair in safe(unsafe, prompt, candidates)])
    GENERAL.write_bytes((SOURCE / GENERAL.name).read_bytes())


def _write(use: Use, pairs: list[Pair]) -> None:
    pairs = random.Random(0).sample(pairs, min(PAIRS, len(pairs)))
    with use.file.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Pair._fields)
        writer.writerows(pairs)
    lengths = [sum(words(getattr(pair, side)) for pair in pairs) / len(pairs) for side in ("chosen", "rejected")]
    print(f"{use.file.name}: {len(pairs)} pairs, {lengths[0]:.0f} words chosen, {lengths[1]:.0f} rejected")


def sample(asked: Sequence[tuple[str, str]], known: Candidates, to: Path) -> None:
    """Have SmolLM2 write what is missing of `COUNTS` replies to each of *asked*, (prompt, kind); append it to *to*."""
    missing = [both for both in asked for _ in range(COUNTS[both[1]] - len(known.get(both, ())))]
    if not missing:
        return
    import torch

    from dpo_hub.recipe import SMOLLM2
    from dpo_hub.training.policy import load_base

    model, tokenizer = load_base(SMOLLM2)
    tokenizer.padding_side = "left"
    torch.manual_seed(len(missing))
    with to.open("a", encoding="utf-8") as file:
        for kind, start in [(kind, start) for kind in COUNTS for start in range(0, len(missing), BATCH)]:
            batch = [both for both in missing if both[1] == kind][start : start + BATCH]
            if not batch:
                continue
            chats = [
                [{"role": "system", "content": ASK_FOR_STEPS}] * (kind == STEPS) + [{"role": "user", "content": prompt}]
                for prompt, _ in batch
            ]
            encoded = tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            written = model.generate(
                **encoded,
                do_sample=True,
                temperature=TEMPERATURE[kind],
                top_k=0,
                max_new_tokens=NEW_TOKENS[kind],
            )
            texts = tokenizer.batch_decode(written[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
            for (prompt, _), text in zip(batch, texts, strict=True):
                file.write(json.dumps({"prompt": prompt, "kind": kind, "text": text.strip()}) + "\n")
            print(f"{kind}: {start + len(batch)} replies of {len(missing)}", file=sys.stderr)


def read(path: Path) -> Candidates:
    """The candidates that are in the file already."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row["prompt"], row["kind"]].append(row["text"])
    return found


def main() -> None:
    """Sample what is missing, and write the files."""
    path = Path(sys.argv[1])
    questions = (SOURCE / "questions.txt").read_text(encoding="utf-8").splitlines()
    lines = (SOURCE / "twins.tsv").read_text(encoding="utf-8").splitlines()[1:]
    twins = [(unsafe, harmless) for unsafe, harmless in (line.split("\t") for line in lines)]
    asked = [(prompt, kind) for kind in (PLAIN, CALM, STEPS) for prompt in questions]
    asked += [both for unsafe, harmless in twins for both in ((unsafe, PLAIN), (harmless, CALM))]
    sample(asked, read(path), path)
    build(questions, twins, read(path))


if __name__ == "__main__":
    main()
