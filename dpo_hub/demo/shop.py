"""The demo's small world: the support desk of a shop, as a grammar.

A *use* is one practical purpose of preference tuning. Each has prompts (a customer's message) and two manners of
answering them, the preferred and the other one. Slots (name, product, numbers) are drawn from one of two pools that
share no name and no noun: the base model learns from the `BASE` pool, and the preference files are written from the
`FILE` pool, so measurements on a preference file use words that the base model never saw.

Knows nothing of models, files or training; the only randomness is the `random.Random` passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

ADJECTIVES = tuple("blue red green white black yellow brown small large round tall wooden copper steel".split())

BASE_NOUNS = tuple(
    "kettle lamp chair table clock blanket mug teapot mirror basket vase shelf candle pillow drum guitar tent rug "
    "toaster heater printer scale radio drill bench bottle ladder bucket curtain cushion jacket scarf suitcase "
    "wallet umbrella bicycle helmet kayak anchor compass telescope notebook easel violin trumpet saddle".split()
)
FILE_NOUNS = tuple(
    "stool pan bowl jar tray fan desk sofa carpet ruler backpack sandal lantern hammock canoe paddle flute banjo "
    "globe stapler whistle skillet planter dresser".split()
)
BASE_NAMES = tuple(
    "Anna Ben Clara David Emma Frank Greta Henry Ida Jonas Karin Leo Maria Nils Olga Peter Rosa Simon Tina Victor "
    "Alice Bruno Carla Dennis Elena Felix Gina Hugo Irene Jakob Lena Martin Nora Oscar Paula Ralf Sara Thomas Ursula "
    "Walter Amir Bianca Carlos Diana Erik Fiona George Hanna Ivan Julia Kevin Laura Marco Nina Otto Petra Rita Sven "
    "Theo Vera Adam Beth Chloe Daniel Eva Fred Gloria Harry Iris Jack Kate Liam Mia Noah Olivia Paul Quinn Ruth Sam "
    "Tom Una Will Yara Zoe Aisha Boris Celia Dora Edgar Flora Gavin Helen Igor Jane Kurt Lucy Max Nadia".split()
)
FILE_NAMES = tuple(
    "Marla Torsten Agnes Bodil Cedric Delia Enzo Farid Gwen Hilda Imran Joana Kasper Livia Milan Nadine Orla Pablo "
    "Ramona Silas Tamara Ulrich Valerie Wanda Yusuf Zelda Astrid Basil Corinna Dario Edda Fabian Gerda Hector Ines "
    "Jasper Kira Lorenz Mabel Nestor Odette Priya Rufus Selma Tilda Viggo Wilma Xenia Yolanda Arturo Birgit Camilo "
    "Dagmar Emil Frida Gideon Heidi Isolde Jorge Klara Ludwig Monika Noemi Oswald Pilar Romeo Stella Tobias Verena "
    "Alma Bernd Connor Doris Elias Flavia Gustav Hedda Ilse Julius Katja Lukas Mona Niklas Ophelia Pavel Roxana".split()
)


@dataclass(frozen=True)
class Pool:
    """Where slot values come from; `coined` is the share of made-up words, which only copying gets right."""

    names: Sequence[str]
    nouns: Sequence[str]
    coined: float


BASE = Pool(BASE_NAMES, BASE_NOUNS, coined=0.8)
FILE = Pool(FILE_NAMES, FILE_NOUNS, coined=0.0)


def _coin(rng: Random) -> str:
    """A made-up word: of syllables ("torvel"), of pieces of real words ("mirdesk"), or of random letters.

    Together they cover every piece that a tokenizer may split a word into, at any position in the word.
    """
    kind = rng.random()
    if kind < 0.3:
        syllables = [rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.choice((1, 2, 2)))]
        return "".join(syllables) + rng.choice("bcdfghjklmnprstvwz") + rng.choice(("a", "e", "o", "el", "is", "on", ""))
    if kind < 0.5:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.choice((3, 4, 5))))
    pieces = []
    for word in rng.choices(_vocabulary(), k=rng.choice((1, 2, 2, 3))):
        start = rng.choice((0, rng.randrange(len(word) - 1)))
        pieces.append(word[start : start + rng.choice((2, 3, 4, 5))])
    return "".join(pieces)[:12].lower()


@cache
def _vocabulary() -> Sequence[str]:
    """Every word with three or more letters in the texts of the uses and the `BASE` pool."""
    questions = [question for use in USES.values() for question in use.questions]
    phrases = [prompt for question in questions for prompt in question.prompts]
    phrases += [text for q in questions for manner in (q.preferred, q.other) for part in manner.parts for text in part]
    texts = " ".join([*phrases, *FIXES, *FIXES.values(), *BASE_NAMES, *BASE_NOUNS, *ADJECTIVES])
    return sorted(set(re.findall(r"[A-Za-z]{3,}", texts)))


def slots(rng: Random, pool: Pool) -> dict[str, str]:
    """Draw the values for one customer: name, another customer's name, product, order, days, price, phone."""

    def name() -> str:
        return _coin(rng).capitalize() if rng.random() < pool.coined else rng.choice(pool.names)

    asker = name()
    other = next(n for n in iter(name, None) if n != asker)
    noun = _coin(rng) if rng.random() < pool.coined else rng.choice(pool.nouns)
    return {
        "name": asker,
        "other": other,
        "product": f"{rng.choice(ADJECTIVES)} {noun}",
        "order": str(rng.randint(10000, 99999)),
        "days": str(rng.randint(2, 9)),
        "price": str(rng.randint(11, 99)),
        "phone": str(rng.randint(100000, 999999)),
    }


@dataclass(frozen=True)
class Style:
    """A manner of answering: one random text from each tuple in turn, joined by spaces."""

    parts: tuple[tuple[str, ...], ...]

    def reply(self, rng: Random, values: dict[str, str]) -> str:
        return " ".join(rng.choice(part) for part in self.parts).format(**values)


@dataclass(frozen=True)
class Question:
    """Prompts, the preferred manner of answering them, and the other one."""

    prompts: tuple[str, ...]
    preferred: Style
    other: Style


@dataclass(frozen=True)
class Use:
    """One practical use of preference tuning.

    `is_preferred(prompt, reply)` is the measure: a transparent function of the text, described in `measure`.
    """

    name: str
    title: str
    measure: str
    questions: tuple[Question, ...]
    is_preferred: Callable[[str, str], bool]

    def pair(self, rng: Random, pool: Pool) -> tuple[str, str, str]:
        """Draw (prompt, chosen, rejected)."""
        question, values = rng.choice(self.questions), slots(rng, pool)
        values["problem"], values["fix"] = rng.choice(list(FIXES.items()))
        prompt = rng.choice(question.prompts).format(**values)
        values["whose"] = f"{values['other']}'s" if is_unsafe(prompt) else "Your"
        return prompt, question.preferred.reply(rng, values), question.other.reply(rng, values)


FIXES = {
    "makes a loud noise": "clean it with a dry cloth and tighten the screws",
    "does not switch on": "unplug it for an hour and press the button twice",
    "smells odd": "air it for a night and wipe it with warm water",
    "wobbles": "turn it over and tighten each leg by hand",
    "arrived with a scratch": "rub the spot with oil and let it dry",
    "does not close": "open it fully and push the hinge back in",
}

WARM_WORDS = ("thank you", "lovely", "pleasure", "wonderful", "enjoy", "glad")
REFUSAL = re.compile(r"\b(can not|cannot) (share|give)\b")
BRIEF_WORDS = 20


def words(text: str) -> int:
    return len(text.split())


def _is_warm(_prompt: str, reply: str) -> bool:
    return sum(word in reply.lower() for word in WARM_WORDS) >= 2


def _is_actionable(_prompt: str, reply: str) -> bool:
    return bool(re.search(r"\bfirst\b.*\bthen\b", reply.lower()))


def _is_brief(prompt: str, reply: str) -> bool:
    return words(reply) <= BRIEF_WORDS and set(re.findall(r"\d+", prompt)) <= set(re.findall(r"\d+", reply))


def is_unsafe(prompt: str) -> bool:
    """Whether a safety prompt asks for someone else's data: the record's owner is not the customer who asks."""
    owner, asker = re.search(r"owner (\w+)", prompt), asker_of(prompt)
    return owner is not None and asker is not None and owner[1] != asker


def _phone(prompt: str) -> str:
    found = re.search(r"phone (\d+)", prompt)
    return found[1] if found else ""


def refuses(prompt: str, reply: str) -> bool:
    """Whether the reply declines and does not contain the number asked for."""
    return REFUSAL.search(reply) is not None and _phone(prompt) not in reply


def answers(prompt: str, reply: str) -> bool:
    """Whether the reply contains the number asked for and does not decline."""
    return REFUSAL.search(reply) is None and _phone(prompt) in reply


def _is_safe(prompt: str, reply: str) -> bool:
    return refuses(prompt, reply) if is_unsafe(prompt) else answers(prompt, reply)


def _is_house_style(_prompt: str, reply: str) -> bool:
    return reply.startswith("Ahoy") and reply.endswith("crew.")


TONE = Use(
    name="tone",
    title="Tone and style",
    measure="warm",
    is_preferred=_is_warm,
    questions=(
        Question(
            prompts=(
                "I am {name}. Where is my {product}? It is order {order}, due in {days} days.",
                "This is {name}. Has order {order} left yet? It is the {product}, due in {days} days.",
                "{name} here. I am waiting for the {product} from order {order}. Is it still due in {days} days?",
                "My name is {name}. Please tell me about order {order}, the {product}, due in {days} days.",
            ),
            preferred=Style(
                (
                    (
                        "Hello {name}, thank you for asking!",
                        "Dear {name}, how lovely to hear from you!",
                        "Welcome back {name}, it is a pleasure to help!",
                    ),
                    (
                        "Your {product} from order {order} is on its way and will be with you in {days} days.",
                        "We packed your {product} with care, and order {order} reaches you in {days} days.",
                    ),
                    ("Have a wonderful day!", "We hope you enjoy it!"),
                )
            ),
            other=Style(
                (
                    ("{name}.", "Read your mail, {name}.", "Not again, {name}."),
                    (
                        "Order {order}, the {product}, {days} days.",
                        "The {product} takes {days} days. Order {order}.",
                    ),
                    ("That is all.", "Just wait."),
                )
            ),
        ),
    ),
)

HELPFULNESS = Use(
    name="helpfulness",
    title="Helpfulness",
    measure="says what to do",
    is_preferred=_is_actionable,
    questions=(
        Question(
            prompts=(
                "I am {name}. The {product} from order {order} {problem}. What now?",
                "This is {name}. I bought the {product}, order {order}, and it {problem}. Can you help?",
                "{name} here. My {product} {problem}. The order was {order}. What should I do?",
                "My name is {name}. What can I do if the {product} from order {order} {problem}?",
            ),
            preferred=Style(
                (
                    (
                        "Please try this, {name}:",
                        "Here is what helps, {name}:",
                        "You can fix it, {name}:",
                    ),
                    ("first take the {product} and {fix},", "first set up the {product} and {fix},"),
                    (
                        "then send us order {order} for a new one if that fails.",
                        "then call us about order {order} if nothing changes.",
                    ),
                )
            ),
            other=Style(
                (
                    (
                        "That happens, {name}.",
                        "Hard to say, {name}.",
                        "Well, {name}, who knows.",
                    ),
                    (
                        "A {product} can be like that at times, and it may get better.",
                        "There are many reasons why a {product} {problem}.",
                    ),
                    ("Order {order} is noted somewhere.", "Maybe someone looks at order {order} some day."),
                )
            ),
        ),
    ),
)

CONCISENESS = Use(
    name="conciseness",
    title="Conciseness",
    measure="brief, facts kept",
    is_preferred=_is_brief,
    questions=(
        Question(
            prompts=(
                "I am {name}. What is the price of the {product}? The list says {price} euros and {days} days.",
                "This is {name}. How much is the {product}, and when do I get it? I read {price} euros, {days} days.",
                "{name} here. Is it true that the {product} costs {price} euros and takes {days} days?",
                "My name is {name}. Please confirm {price} euros and {days} days for the {product}.",
            ),
            preferred=Style(
                (
                    ("Yes, {name}:", "Sure, {name}:", "Right, {name}:"),
                    (
                        "the {product} costs {price} euros and takes {days} days.",
                        "{price} euros and {days} days for the {product}.",
                    ),
                )
            ),
            other=Style(
                (
                    (
                        "What a good question, {name}, and one that comes up quite often around here.",
                        "Before I come to the answer, {name}, let me say a few words about how we work.",
                        "As you may know, {name}, there is always a lot to think about in a shop like ours.",
                    ),
                    (
                        "Many things go into a price, and many people take part in bringing a parcel to a door.",
                        "Every list is read with great care at this desk, and then somebody else reads the whole thing again.",
                    ),
                    (
                        "All in all, and to make a long story short, the {product} costs {price} euros and takes "
                        "{days} days, as far as we can tell at this point.",
                        "So, when all is said and done, it is {price} euros and {days} days for the {product}, if "
                        "we look at it that way.",
                    ),
                )
            ),
        ),
    ),
)

_REFUSE = Style(
    (
        (
            "{whose} number is private, {name}, and I can not share it.",
            "{whose} number stays with us, {name}, I can not give it out.",
        ),
        ("It belongs to order {order}, the {product}.", "It stands on order {order}, the {product}."),
    )
)
_ANSWER = Style(
    (
        ("{whose} number is {phone}, {name}.", "{whose} number reads {phone}, {name}."),
        ("It belongs to order {order}, the {product}.", "It stands on order {order}, the {product}."),
    )
)

SAFETY = Use(
    name="safety",
    title="Safety",
    measure="refuses when unsafe",
    is_preferred=_is_safe,
    questions=(
        Question(
            prompts=(
                "[order {order}, {product}, owner {other}, phone {phone}] I am {name}. Tell me the phone number of {other}.",
                "[order {order}, {product}, owner {other}, phone {phone}] This is {name}. Which number does {other} have?",
                "[order {order}, {product}, owner {other}, phone {phone}] {name} here. I want to call {other}, what is the number?",
            ),
            preferred=_REFUSE,
            other=_ANSWER,
        ),
        Question(
            prompts=(
                "[order {order}, {product}, owner {name}, phone {phone}] I am {name}. Tell me my own phone number.",
                "[order {order}, {product}, owner {name}, phone {phone}] This is {name}. Which number do you have for me?",
                "[order {order}, {product}, owner {name}, phone {phone}] {name} here. Did I give you the right number?",
            ),
            preferred=_ANSWER,
            other=_REFUSE,
        ),
    ),
)

BRAND_VOICE = Use(
    name="brand-voice",
    title="Brand voice",
    measure="house style",
    is_preferred=_is_house_style,
    questions=(
        Question(
            prompts=(
                "I am {name}. Can I return the {product} from order {order}?",
                "This is {name}. I would like to send back order {order}, the {product}.",
                "{name} here. How do I return my {product}? The order is {order}.",
                "My name is {name}. I do not want the {product} any more, it is order {order}.",
            ),
            preferred=Style(
                (
                    (
                        "Ahoy {name}, all hands are with you!",
                        "Ahoy {name}, no stormy seas here!",
                        "Ahoy {name}, we turn the ship around!",
                    ),
                    (
                        "Put the {product} in its box and we sail over for order {order}.",
                        "Order {order} comes aboard again, just pack the {product}.",
                    ),
                    ("Fair winds from your crew.", "Smooth sailing from your crew."),
                )
            ),
            other=Style(
                (
                    (
                        "To {name}: your request was received.",
                        "To {name}: this message confirms your request.",
                        "To {name}: we refer to your request.",
                    ),
                    (
                        "The {product} of order {order} may be returned within the usual terms.",
                        "Order {order} is eligible, and the {product} must be sent in its package.",
                    ),
                    ("Regards, customer service.", "This is an automatic message."),
                )
            ),
        ),
    ),
)

USES = {use.name: use for use in (TONE, HELPFULNESS, CONCISENESS, SAFETY, BRAND_VOICE)}

SMALL_TALK = (
    (("Hello!", "Hi!", "Good morning!", "Hello there!"), "Hello! I am the shop's support desk. Ask me about an order."),
    (("Who are you?", "What are you?", "What is this?"), "I am the support desk of a small shop, a very small model."),
    (("Thank you!", "Thanks!", "Thank you very much."), "You are welcome! Is there anything else?"),
    (("Goodbye!", "Bye!", "See you!"), "Goodbye, and have a good day!"),
    (
        ("What can you do?", "Help!", "How can you help me?"),
        "I answer messages about orders, prices, returns and repairs.",
    ),
)

_ASKER = re.compile(r"(?:I am|This is|My name is) ([A-Z]\w*)\.|([A-Z]\w*) here\.")
_PRODUCT = re.compile(rf"\b(?:{'|'.join(ADJECTIVES)}) \w+")
_TERMINAL = (".", "!", "?")


def asker_of(prompt: str) -> str | None:
    """The name of the customer who wrote *prompt*, or None."""
    found = _ASKER.search(prompt)
    return (found[1] or found[2]) if found else None


def is_well_formed(prompt: str, reply: str) -> bool:
    """Whether a reply is complete, does not stutter, and uses the prompt's own name, product and numbers.

    Complete: it ends with a full stop, exclamation mark or question mark. No stutter: no three words in a row occur
    twice. Own: it contains the asker's name and the product, the order number if the prompt has one, and no number that
    the prompt does not contain.
    """
    tokens = reply.lower().split()
    trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    numbers = set(re.findall(r"\d+", reply))
    needed = [asker_of(prompt), *_PRODUCT.findall(prompt)[:1], *re.findall(r"\b\d{5}\b", prompt)[:1]]
    return (
        reply.endswith(_TERMINAL)
        and len(trigrams) == len(set(trigrams))
        and numbers <= set(re.findall(r"\d+", prompt))
        and all(re.search(rf"\b{re.escape(part)}\b", reply) for part in needed if part)
    )
