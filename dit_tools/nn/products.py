"""Taking over torch's attention product, wherever a family's attention module calls it.

Whatever a module does before and after (projections, norms, rotary positions, joining text and
image), it calls ``torch.nn.functional.scaled_dot_product_attention`` once, and a torch function
mode sees that call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Products(TorchFunctionMode):
    """Inside the context ``take(query, key, value, ...)`` makes every attention product.

    Products that ``take`` asks for itself run as ever: a mode is off in its own function. ``seen``
    tells whether there was any.
    """

    def __init__(self, take: Callable[..., Tensor]):
        super().__init__()
        self._take, self.seen = take, False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Torch's hook: every torch function that is called inside the context."""
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.seen = True
        return self._take(*args, **kwargs)
