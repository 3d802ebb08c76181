"""A reply as text while its tokens are still arriving. Knows nothing of models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"
"""What the first bytes of a character decode to while the others are missing."""


@dataclass
class Detokenizer:
    """A growing reply, without incomplete characters and without leading or trailing spaces."""

    tokenizer: PreTrainedTokenizerBase
    tokens: list[int] = field(default_factory=list)
    emitted: str = ""

    def add(self, token: int) -> str:
        """Add *token*, and return the text that is now complete."""
        self.tokens.append(token)
        whole = self._whole()
        return "" if whole.endswith(UNFINISHED) else self._emit(whole)

    def flush(self) -> str:
        """Return all text not yet returned."""
        return self._emit(self._whole())

    def _emit(self, whole: str) -> str:
        before, self.emitted = self.emitted, whole
        return whole[len(before) :]

    def _whole(self) -> str:
        decode: Any = self.tokenizer.decode
        text: str = decode(self.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip()
