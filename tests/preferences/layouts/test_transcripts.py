from __future__ import annotations

import time

import pytest

from dpo_hub.preferences.layouts.transcripts import WORDS, parse_transcript, without_last_token
from tests.preferences.layouts.conftest import Message, Read, assistant, chat, system, texts, user

VICUNA = "A chat between a curious user and an artificial intelligence assistant."
ALPACA = "Below is an instruction that describes a task."
LLAMA_3 = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"

FAMILIES = {
    "ChatML": (
        "<|im_start|>system\nS<|im_end|>\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n",
        "<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n",
    ),
    "Llama 3": (
        "<|begin_of_text|>" + LLAMA_3.format("system", "S"),
        LLAMA_3.format("user", "Hi") + LLAMA_3.format("assistant", "Yo"),
        LLAMA_3.format("user", "More") + HEADER,
    ),
    "Zephyr": (
        "<|system|>\nS</s>\n",
        "<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n",
        "<|user|>\nMore</s>\n<|assistant|>\n",
    ),
    "Phi": ("<|system|>S<|end|>", "<|user|>Hi<|end|><|assistant|>Yo<|end|>", "<|user|>More<|end|><|assistant|>"),
    "Vicuna": (f"{VICUNA} ", "USER: Hi ASSISTANT: Yo</s>", "USER: More ASSISTANT:"),
    "Alpaca": (
        f"{ALPACA}\n\n",
        "### Instruction:\nHi\n\n### Response:\nYo\n\n",
        "### Instruction:\nMore\n\n### Response:",
    ),
    "Guanaco": ("", "### Human: Hi### Assistant: Yo", "### Human: More### Assistant:"),
    "Gemma": (
        "<bos>",
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n",
        "<start_of_turn>user\nMore<end_of_turn>\n<start_of_turn>model\n",
    ),
    "Mistral": ("<s>", "[INST] Hi [/INST]Yo</s>", "[INST] More [/INST]"),
    "HH": ("\n\n", "Human: Hi\n\nAssistant: Yo", "\n\nHuman: More\n\nAssistant:"),
    "one break": ("", "Human: Hi\nAssistant: Yo", "\nHuman: More\nAssistant:"),
}
SYSTEMS = {"ChatML": "S", "Llama 3": "S", "Zephyr": "S", "Phi": "S", "Vicuna": VICUNA, "Alpaca": ALPACA}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_of_markup_is_read(family: str) -> None:
    """A chat that was rendered for any model is the same chat again, with its system turn where there is one."""
    first, turns, last = FAMILIES[family]
    before = [system(SYSTEMS[family])] if family in SYSTEMS else []
    assert parse_transcript(first + turns + last) == [*before, *chat("Hi", "Yo", "More")]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("HH", "one break")])
def test_each_family_without_a_system_turn(family: str) -> None:
    """The system turn may be missing, and the chat may be one turn."""
    last = FAMILIES[family][2]
    assert parse_transcript(last) == [user("More")]


def test_llama_2_has_the_system_turn_inside() -> None:
    """What stands between <<SYS>> marks is the system message."""
    text = "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nHi [/INST] Yo </s><s>[INST] More [/INST]"
    assert parse_transcript(text) == [system("S"), *chat("Hi", "Yo", "More")]


def test_the_input_of_alpaca_goes_under_its_instruction() -> None:
    """Two turns of the user in a row are what chat templates refuse."""
    text = f"{ALPACA}\n\n### Instruction:\nMend\n\n### Input:\nfreind\n\n### Response:\n"
    assert parse_transcript(text) == [system(ALPACA), user("Mend\n\nfreind")]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("<|im_start|>user\nHi", [user("Hi")]),
        ("<|user|>\nHi</s>", [user("Hi")]),
        ("<|assistant|>\nYo", [assistant("Yo")]),
        ("<|im_start|>assistant\nYo<|im_end|>", [assistant("Yo")]),
        ("\n\nHuman: a\n\nAssistant: Human: b\nAssistant: c", chat("a", "Human: b\nAssistant: c")),
        (
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>tool\n12<|im_end|>",
            [user("Hi"), {"role": "tool", "content": "12"}],
        ),
    ],
)
def test_parts_of_chats(text: str, messages: list[Message]) -> None:
    """A single turn counts where its mark has a line to itself or is closed, and words inside a turn stay there."""
    assert parse_transcript(text) == messages


@pytest.mark.parametrize(
    "text",
    [
        "How do I use [INST] in a prompt?",
        "[INST] is a token, what does it do?",
        "[INST]",
        "Human: who are you?",
        "USER: hi",
        "Human: and Assistant: are roles",
        "### How to write headings",
        "### Instruction: what does that mean?",
        "### Title\n\n[INST] a [/INST] marks a turn",
        "What is <|im_start|>?",
        "<|im_start|> is what?",
        "<|im_start|>narrator\nOnce<|im_end|>",
        "<|user|> what?",
        "<|im_start|>user\nHi<|im_end|> and so on",
        "<s>struck</s>",
        "<table></table>",
        "Below is an instruction. Follow it.",
        "A chat between a cat and a dog",
        "Assistant: Hello",
        "",
    ],
)
def test_a_text_about_markup_stays_text(text: str) -> None:
    """Who asks about a token is not taken for one who uses it."""
    assert parse_transcript(text) is None


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("Yo</s>", "Yo"),
        ("Yo <|im_end|>\n", "Yo"),
        ("Yo<|eot_id|><|end_of_text|>", "Yo"),
        ("Yo<end_of_turn>\n<eos>", "Yo"),
        ("<s>struck</s>", "<s>struck</s>"),
        ("<b>Yo</b>", "<b>Yo</b>"),
        ("Yo </s> there", "Yo </s> there"),
        ("</s>", ""),
    ],
)
def test_tokens_that_end_a_turn_are_taken_off(text: str, bare: str) -> None:
    """All of them go, and nothing else does."""
    assert without_last_token(text) == bare


@pytest.mark.parametrize(
    "text",
    ["a" + " " * 200_000 + ">", "[INST] <<SYS>>" + " " * 200_000 + "x [/INST] y", "<|user|>" + "\n" * 200_000 + "x"],
)
def test_long_runs_of_spaces_take_no_time(text: str) -> None:
    """A cell that is mostly white space is read in linear time."""
    began = time.process_time()
    without_last_token(text)
    parse_transcript(text)
    assert time.process_time() - began < 2


def test_words_are_among_those_that_send_a_cell_the_careful_way(read: Read) -> None:
    """A rendered prompt in a file of plain cells is found by each of its beginnings."""
    for start in WORDS:
        (family,) = {
            "Human:": ("HH",),
            "USER:": ("Vicuna",),
            "### ": ("Guanaco",),
            "Below is an instruction": ("Alpaca",),
            "A chat between a": ("Vicuna",),
        }[start]
        first, turns, last = FAMILIES[family]
        text = (first if start not in ("USER:", "Human:") else "") + turns + last
        assert text.startswith(start)
        (pair,) = texts(read({"prompt": text, "chosen": "g</s>", "rejected": "b"}))
        assert pair[0].endswith("user: Hi\n\nassistant: Yo\n\nuser: More")
        assert pair[1:] == ("g", "b")
