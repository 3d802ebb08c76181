"""stub"""
from __future__ import annotations
from dataclasses import dataclass
from typing import Any
@dataclass(frozen=True)
class Finding:
    kind: str
    severity: str
    message: str
    first_step: int
    last_step: int
    advice: str
    ends_training: bool = False
def examine(*a: Any) -> list[Finding]:
    return []
