"""Counts the bytes of live tensors while a computation runs, on any device. Knows nothing of models."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts bytes computed within the context and still held: `now`, and `most` since the last `restart`.

    Tensors from before do not count, nor does memory that an operation holds only while it runs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def restart(self) -> None:
        """Track the maximum from here on."""
        self.most = self.now

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count the new storages of its result."""
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
