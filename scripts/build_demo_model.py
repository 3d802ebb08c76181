"""Build the demo: the base model in `dpo_hub/demo/model` and the preference files in `dpo_hub/demo/files`.

Everything comes from the grammar in `dpo_hub.demo.shop` and a seed, nothing from outside. The model is trained on
questions answered in either manner, equally often, so that preference tuning has something to settle.

    python scripts/build_demo_model.py            about half an hour on two CPU cores, up to 13 GB of memory
    python scripts/build_demo_model.py --files    the preference files only, a second
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_hub.demo import shop

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

DEMO = Path(shop.__file__).parent
SEED = 7
PAIRS_PER_FILE = 500
EARLIER_TURNS = 0.12
SMALL_TALK = 0.02
VOCABULARY = 1024
MUON_RATE = 0.02
TOKENS_A_BATCH = 2000
"""What the summed loss is divided by: each reply's first token, where the manner is chosen, weighs the same."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MARKS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def write_files() -> None:
    """Write one preference file a use, no prompt twice."""
    (DEMO / "files").mkdir(exist_ok=True)
    for use in shop.USES.values():
        rng = random.Random(f"{SEED} {use.name}")
        pairs: dict[str, tuple[str, str]] = {}
        while len(pairs) < PAIRS_PER_FILE:
            prompt, chosen, rejected = use.pair(rng, shop.FILE)
            pairs[prompt] = (chosen, rejected)
        with (DEMO / "files" / f"{use.name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("prompt", "chosen", "rejected"))
            writer.writerows((prompt, *answers) for prompt, answers in pairs.items())


def lesson(rng: random.Random) -> list[dict[str, str]]:
    """Draw a chat whose last reply is to be learned: one of either manner, now and then after an earlier exchange."""
    earlier = lesson(rng) if rng.random() < EARLIER_TURNS else []
    if rng.random() < SMALL_TALK:
        prompts, reply = rng.choice(shop.SMALL_TALK)
        prompt = rng.choice(prompts)
    else:
        prompt, *replies = rng.choice(list(shop.USES.values())).pair(rng, shop.BASE)
        reply = rng.choice(replies)
    return [*earlier, {"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train a BPE tokenizer with single digits on lessons."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(SEED)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lessons = (lesson(rng) for _ in range(20_000))
    tokenizer.train_from_iterator((message["content"] for chat in lessons for message in chat), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
    )


def batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, steps: int, *, rows: int = 64, pool: int = 16
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield at least `steps` batches, rows of like length together: token ids, padded, and which of them count."""
    import torch

    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    for _ in range(0, steps, pool):
        chats = [lesson(rng) for _ in range(rows * pool)]
        encoded = sorted(tokenizer.apply_chat_template(chats, return_dict=False), key=len)
        cut = [encoded[i : i + rows] for i in range(0, len(encoded), rows)]
        rng.shuffle(cut)
        for batch in cut:
            length = max(map(len, batch))
            ids = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in batch])
            turns = (ids == assistant).cumsum(1)
            answered = (turns == turns[:, -1:])[:, :-1] & (ids[:, 1:] != tokenizer.pad_token_id)
            yield ids, answered


def build(steps: int, out: Path) -> None:
    """Train tokenizer and model on lessons drawn without end, and save them."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    tokenizer = train_tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.set_attn_implementation("eager")
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(hidden, lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98)),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda s: min(1.0, (s + 1) / 50, (steps - s) / (steps * 0.6)))
        for o in optimizers
    ]
    started, losses = time.monotonic(), []
    drawn = islice(batches(tokenizer, random.Random(SEED), steps), steps)
    for step, (ids, answered) in enumerate(drawn, start=1):
        with torch.autocast("cpu", torch.bfloat16):
            scored = model.model(input_ids=ids[:, :-1]).last_hidden_state[answered]
            loss = cross_entropy(model.lm_head(scored).float(), ids[:, 1:][answered], reduction="sum") / TOKENS_A_BATCH
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if step % 50 == 0:
            print(
                f"step {step}/{steps}  loss {sum(losses[-50:]) / 50:.4f}  {time.monotonic() - started:.0f} s",
                flush=True,
            )
    save(model, tokenizer, out)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save weights in half precision, marked to be loaded as float32: half the size, and one dtype for everybody."""
    model.half().save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--out", type=Path, default=DEMO / "model")
    options = parser.parse_args()
    write_files()
    if not options.files:
        build(options.steps, options.out)
