"""Detects traits of a text: secrets, markup, wrong encodings, noise, refusals, insults and its language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

SECRET = re.compile(
    r"""(?x)
    -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----(?s:.*?)(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \b(?:
        hf_[A-Za-z0-9]{30,}
      | sk-(?=[\w-]{0,100}\d)[\w-]{20,}
      | [rs]k_live_[A-Za-z0-9]{20,}
      | gh[opsur]_[A-Za-z0-9]{36,} | github_pat_\w{50,} | glpat-[\w-]{20,}
      | (?:AKIA|ASIA)[A-Z0-9]{16}\b
      | xox[abeoprs]-[\w-]{10,}
      | AIza[\w-]{35}
      | npm_[A-Za-z0-9]{36} | pypi-[\w-]{50,}
      | eyJ[\w-]{8,300}\.eyJ[\w-]{8,}\.[\w-]{8,}
    )"""
)
"""Keys and tokens with a recognisable format: Hugging Face, OpenAI and Anthropic, Stripe, GitHub, GitLab, AWS, Slack,
Google, npm, PyPI, JSON web tokens, and private keys in PEM."""
_SECRET_MARKS = re.compile(r"PRIVATE KEY|hf_|sk-|k_live_|gh[opsur]_|github_pat|glpat|A[KS]IA|xox|AIza|npm_|pypi-|eyJ")

EMAIL = re.compile(r"\b[\w.+-]{1,64}@(?!example\.)(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,63}\b")
"""A real person's address; `@example.com` belongs to nobody."""

CONTROL = re.compile("\x1b\\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Control characters other than tab and line ends, and terminal colour codes."""

_MARKUP = re.compile(
    r"<\|\w[\w ]{0,30}\|>|</?start_of_turn>|<end_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|### (?:Instruction|Response):|\n\n(?:Human|Assistant):"
)
_MOJIBAKE = re.compile(
    "\ufffd|Ã[\x80-\xbf€‚ƒ„†‡‰Š‹ŒŽ•˜™š›œžŸ]|Â[\xa0-\xbf]|â€[\x80-\xbf™œ˜“”¦¢]|ðŸ|ï»¿|[ÐÑ][\x80-\xbf]"
)
"""UTF-8 that was read as Windows-1252, or bytes that could not be decoded at all."""


def holds_secret(text: str) -> bool:
    """Whether *text* contains a key or a token."""
    return bool(_SECRET_MARKS.search(text) and SECRET.search(text))


def holds_email(text: str) -> bool:
    """Whether *text* contains a real e-mail address."""
    return "@" in text and bool(EMAIL.search(text))


def holds_markup(text: str) -> bool:
    """Whether *text* contains chat template markup; in HTML, `<s>` never appears without `</s>`."""
    lone = ("<s>" in text) != ("</s>" in text)
    return lone or (any(mark in text for mark in "<[#\n") and bool(_MARKUP.search(text)))


def holds_mojibake(text: str) -> bool:
    """Whether *text* was decoded with the wrong encoding at some point."""
    return not text.isascii() and bool(_MOJIBAKE.search(text))


def holds_control(text: str) -> bool:
    """Whether *text* contains control characters."""
    return not text.isprintable() and bool(CONTROL.search(text))


_DECLINES = re.compile(
    r" i (?:just |really |simply )?(?:can ?not|can t|cant|won t|will not|am unable to|m unable to|(?:a?m )?not able to"
    r"|a?m not comfortable|do not feel comfortable|don t feel comfortable) (?!wait )(?:\w+ ){0,2}?(?:advis|answer"
    r"|assist|comply|condon|continu|creat|disclos|discuss|encourag|engag|fulfil|generat|giv|help|offer|participat"
    r"|produc|promot|provid|respond|reveal|say|shar|suggest|support|tell|writ)"
    r"| i (?:must|have to) decline | i (?:do not|don t) know | who knows | no idea "
)
DECLINED_WITHIN = 40
"""A refusal comes within this many words; later on it is only a caveat."""


def is_refusal(found: Sequence[str]) -> bool:
    """Whether a reply with these words refuses or evades the question."""
    return bool(_DECLINES.search(f" {' '.join(found[:DECLINED_WITHIN])} "))


_SENSITIVE_WORDS = frozenset(
    "abuse address attack bomb burglar cheat cocaine confidential crack crime criminal dangerous deepfake drug drugs "
    "exploit explosive explosives fake fraud gun guns hack harass harm harmful hate heroin hurt illegal illegally "
    "insult kill killing malware meth murder naked nude password passwords personal phishing phone poison porn privacy "
    "private racist ransomware rape scam secret sex sexual shoplift slur spy stalk steal stealing stolen suicide "
    "terrorist threaten toxic unethical unsafe violence violent virus weapon weapons".split()
)


def is_sensitive(found: Sequence[str]) -> bool:
    """Whether these words include a topic that may justify a refusal: harm, crime or privacy."""
    return not _SENSITIVE_WORDS.isdisjoint(found)


_RUDE = frozenset(
    "asshole bastard bitch bullshit clueless crap damn dammit dumb dumbass duh fool fuck fucking goddamn hell idiot "
    "idiotic idiots loser moron moronic pathetic shit shut stupid stupidity sucks suck worthless".split()
)


def rude(found: Sequence[str]) -> bool:
    """Whether these words include an insult."""
    return not _RUDE.isdisjoint(found)


_KEYBOARD = ("asdf", "sdfg", "dfgh", "fghj", "ghjk", "hjkl", "qwert", "wertz", "zxcv", "xcvb", "yxcv")
_VOWELS = frozenset("aeiouy")
_NOISE_WORDS, _NOISE_LETTERS = 200, 40


def noise(text: str, found: Sequence[str]) -> bool:
    """Whether *text*, with the words *found*, is keyboard noise, repeats itself, or is wrongly encoded."""
    start = [word[:_NOISE_LETTERS] for word in found[:_NOISE_WORDS]]
    repeats = len(start) >= 8 and 4 * len(set(start)) <= len(start)
    return repeats or 5 * sum(map(_is_gibberish, start)) > len(start) or holds_mojibake(text)


@lru_cache(maxsize=2**16)
def _is_gibberish(word: str) -> bool:
    """Whether *word* is long and has no vowel, follows a keyboard row, or repeats one or two letters."""
    if len(word) < 6 or not word.isascii() or not word.isalpha():
        return False
    return _VOWELS.isdisjoint(word) or len(set(word)) < 3 or any(row in word for row in _KEYBOARD)


_COMMON = {
    "English": "the and of to is that you for with are this be have it not your what which from can",
    "German": "der die das und ist nicht ein eine sie ich mit auf für den zu wir auch wie dass sich",
    "French": "le les des et est une pas vous que qui dans pour sur avec je nous il ce du sont",
    "Spanish": "el los las y es una que por para con no su como más pero del se lo está muy",
    "Portuguese": "os as é uma que não para com por mais você em ao do da dos se seu como são",
    "Italian": "il gli è una che non per con di sono della si come più del nel questo anche le ma",
    "Dutch": "het een en van is niet dat op te zijn voor met ik je ook maar naar wordt deze bij",
    "Polish": "w nie na się z że jest do to jak co ale po od za być czy dla przez są",
}
_LANGUAGES = {
    word: [name for name, common in _COMMON.items() if word in common.split()]
    for word in " ".join(_COMMON.values()).split()
}
_SCRIPTS = {
    name: re.compile(f"[{letters}]")
    for name, letters in {
        "Japanese": "\u3040-\u30ff",
        "Korean": "\uac00-\ud7af",
        "Chinese": "\u4e00-\u9fff",
        "Russian or another language in Cyrillic": "\u0400-\u04ff",
        "Greek": "\u0370-\u03ff",
        "Arabic or another language in its script": "\u0600-\u06ff",
        "Hebrew": "\u0590-\u05ff",
        "Hindi or another language in Devanagari": "\u0900-\u097f",
        "Thai": "\u0e00-\u0e7f",
    }.items()
}
_LANGUAGE_WORDS = 60
_LANGUAGE_HITS = 4
"""Minimum number of common words to name a language; it must also have half as many again as the runner-up."""


def language(found: Sequence[str]) -> str | None:
    """Name the language of these words, by script or by common words; None if it is not clear."""
    start = found[:_LANGUAGE_WORDS]
    spaced = "".join(start)
    if not spaced.isascii():
        for name, letters in _SCRIPTS.items():
            if 3 * len(letters.findall(spaced)) > len(spaced):
                return name
    hits = Counter(name for word in start for name in _LANGUAGES.get(word, ()))
    best = [*hits.most_common(2), ("", 0), ("", 0)]
    return best[0][0] if best[0][1] >= _LANGUAGE_HITS and 2 * best[0][1] >= 3 * best[1][1] else None
