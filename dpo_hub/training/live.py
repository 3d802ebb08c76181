"""How many bytes the tensors of a computation take while it runs, on any device. Knows nothing of models."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts what is computed within the context and still held: `now`, and at most since the last `restart`.

    What was there before does not count, nor what an operation holds only while it runs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def restart(self) -> None:
        """Look for the maximum from here on."""
        self.most = self.now

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what is asked, and count the new storages of the result."""
        self._count((args, kwargs), new=False)
        result = func(*args, **(kwargs or {}))
        self._count(result, new=True)
        return result

    def _count(self, tree: Any, *, new: bool) -> None:
        for tensor in tree_leaves(tree):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._sizes:
                    self._sizes[key] = storage.nbytes() if new else 0
                    self.now += self._sizes[key]
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._drop, key).atexit = False

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
