"""Preferences written on the page: two drafts by the demo model for a prompt, and pairs saved to a file.

Loads torch when the first draft is requested.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from ...errors import PreferencesError, explaining_disk_full
from ...preferences.pairfile import PART_ROLES as ROLES
from ...recipe import DEMO_MODEL
from .files import ID, Source, find, new_folder, save_about

WRITTEN = "written.jsonl"
"""The display name of a file of pairs written on the page."""
TRIES = 3
TOKENS = 96


def loaded() -> bool:
    """Whether the model is in memory."""
    return _model.cache_info().currsize > 0


def drafts(prompt: str) -> tuple[str, str]:
    """Sample two replies to *prompt* from the base model; they differ unless it hardly ever says anything else.

    Raises:
        PreferencesError: the prompt is empty.
        ModelError: the model cannot be loaded.
    """
    if not prompt.strip():
        raise PreferencesError("Write a prompt first: what somebody asks the model.")
    replies: list[str] = []
    for _ in range(TRIES):
        replies += _sampled(prompt.strip())
        if len(different := list(dict.fromkeys(filter(None, replies)))) > 1:
            return different[0], different[1]
    return replies[0], replies[1]


def _sampled(prompt: str) -> list[str]:
    import torch

    model, tokenizer = _model()
    chat = [{"role": "user", "content": prompt}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    asked = asked.to(model.device)
    with torch.inference_mode():
        drawn = model.generate(
            **asked,
            do_sample=True,
            temperature=1.0,
            num_return_sequences=2,
            max_new_tokens=TOKENS,
            pad_token_id=tokenizer.pad_token_id,
        )
    replies = drawn[:, asked["input_ids"].shape[1] :]
    return [str(text).strip() for text in tokenizer.batch_decode(replies, skip_special_tokens=True)]


@cache
def _model() -> tuple[Any, Any]:
    from ...training.policy import load_base, quiet

    quiet()
    return load_base(DEMO_MODEL)


def add_pair(shelf: Path, file: str, prompt: str, chosen: str, rejected: str) -> str:
    """Add a pair to *file* if it was written on the page, else to a new one; return the file's id.

    Raises:
        PreferencesError: a part is missing, the replies are the same, or the visitor has too many files.
        DiskFullError: there is no room.
    """
    texts = _whole(prompt.strip(), chosen.strip(), rejected.strip())
    folder = _written(shelf, file)
    pair = {part: [{"role": role, "content": text}] for (part, role), text in zip(ROLES.items(), texts, strict=True)}
    line = json.dumps(pair, ensure_ascii=False).encode() + b"\n"
    with explaining_disk_full(shelf), FileLock(folder / ".lock"), (folder / "file.jsonl").open("ab") as lines:
        lines.write(line)
    return folder.name


def _whole(prompt: str, chosen: str, rejected: str) -> tuple[str, str, str]:
    """The three texts, if they make a pair.

    Raises:
        PreferencesError: they do not.
    """
    if not (prompt and chosen and rejected):
        raise PreferencesError("A pair needs a prompt and two replies. Write what is missing.")
    if chosen == rejected:
        raise PreferencesError("Both replies are the same, so neither is better. Change one of them.")
    return prompt, chosen, rejected


def _written(shelf: Path, file: str) -> Path:
    """The folder of *file* if it was written on the page, else that of a new one."""
    if ID.fullmatch(file) and find(shelf, file).written:
        return shelf / "files" / file
    folder = new_folder(shelf)
    (folder / "file.jsonl").touch()
    save_about(folder, Source(WRITTEN, "", written=True))
    return folder
