"""Both sides in one batch compared with the same replies one after the other: time, text, and first token.

    python benchmarks/duet.py [--json] [--model demo|135m] [--tokens 128] [--turns 7]

Greedy decoding, one prompt, in one process; the two ways take turns, and times are medians. "One after the other" is
two calls of `generate`, adapter off and adapter on. Targets: at most 0.65 of its time, the same text, and the first
token of both sides before its first side has ended. The model of 135 million parameters has random weights and never
ends a reply; no adapter was trained, each has random weights large enough to change the replies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from peft import LoraConfig, get_peft_model
from training import SHAPES, make_model

from dpo_hub.comparison.duet import Duet
from dpo_hub.training.policy import load_base, quiet

QUESTION = {"demo": "Where is my order?", "135m": " ".join(f"w{number}" for number in range(100, 160))}


def make_duet(name: str) -> Duet:
    """A base model with an adapter that makes a difference."""
    with tempfile.TemporaryDirectory() as folder:
        source = "demo" if name == "demo" else str(make_model(SHAPES[name], Path(folder)))
        base, tokenizer = load_base(source)
    torch.manual_seed(1)
    policy = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"))
    for weights in (weights for part, weights in policy.named_parameters() if "lora_B" in part):
        torch.nn.init.normal_(weights, std=0.02)
    return Duet(policy.eval(), tokenizer)


def one_by_one(duet: Duet, chat: list[dict[str, str]], tokens: int) -> tuple[list[str], float]:
    """Both replies, and the seconds until the first reply has ended."""
    began = time.perf_counter()
    encoded = duet.tokenizer.apply_chat_template(
        [chat], add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(duet.model.device)
    asked = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": duet.tokenizer.pad_token_id}
    with torch.inference_mode(), duet.model.disable_adapter():
        before = duet.model.generate(**encoded, **asked)
    first = time.perf_counter() - began
    with torch.inference_mode():
        after = duet.model.generate(**encoded, **asked)
    width = encoded["input_ids"].shape[1]
    return [duet.tokenizer.decode(one[0, width:], skip_special_tokens=True).strip() for one in (before, after)], first


def together(duet: Duet, chat: list[dict[str, str]], tokens: int) -> tuple[list[str], float]:
    """Both replies, and the seconds until both have begun."""
    began, texts, first = time.perf_counter(), ["", ""], 0.0
    for step in duet.stream([chat, chat], temperature=0, max_new_tokens=tokens):
        texts = [text + new for text, new in zip(texts, step, strict=True)]
        first = first or (time.perf_counter() - began if all(texts) else 0.0)
    return texts, first


def measure(name: str, tokens: int, turns: int) -> dict[str, Any]:
    """Run the two ways in turns; the first turn is not counted."""
    duet, chat = make_duet(name), [{"role": "user", "content": QUESTION[name]}]
    ways = {"one_by_one": one_by_one, "together": together}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    firsts: dict[str, list[float]] = {way: [] for way in ways}
    said: dict[str, list[str]] = {}
    for _ in range(turns + 1):
        for way, ask in ways.items():
            began = time.perf_counter()
            said[way], first = ask(duet, chat, tokens)
            seconds[way].append(time.perf_counter() - began)
            firsts[way].append(first)
    took = {way: median(of[1:]) for way, of in seconds.items()}
    first_token, first_side = (median(firsts[way][1:]) for way in ("together", "one_by_one"))
    return {
        "model": name,
        "device": duet.model.device.type,
        "threads": torch.get_num_threads(),
        "tokens": [len(duet.tokenizer.encode(text)) for text in said["together"]],
        "seconds": {way: round(of, 4) for way, of in took.items()},
        "ratio": round(took["together"] / took["one_by_one"], 3),
        "identical": said["together"] == said["one_by_one"],
        "first_token": round(first_token, 4),
        "first_side_one_by_one": round(first_side, 4),
    }


def main() -> None:
    """Measure on the requested models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=QUESTION, help="only this one; may be repeated")
    parser.add_argument("--tokens", type=int, default=128, help="the longest reply")
    parser.add_argument("--turns", type=int, default=7, help="turns that count")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    quiet()
    cases = [measure(name, args.tokens, args.turns) for name in args.model or QUESTION]
    if args.json:
        worst, identical = max(case["ratio"] for case in cases), all(case["identical"] for case in cases)
        print(json.dumps({"ratio": worst, "identical": identical, "cases": cases}, indent=2))
        return
    for case in cases:
        print(
            f"{case['model']}: together {case['seconds']['together']:.2f} s, one after the other "
            f"{case['seconds']['one_by_one']:.2f} s: {case['ratio']} of the time; "
            f"{'the same text' if case['identical'] else 'ANOTHER TEXT'}; both have begun after "
            f"{case['first_token'] * 1000:.0f} ms, where its first side ends after "
            f"{case['first_side_one_by_one'] * 1000:.0f} ms"
        )


if __name__ == "__main__":
    main()
