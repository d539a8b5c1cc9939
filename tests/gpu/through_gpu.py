"""pytest plugin: the operators' tests, unchanged, on the GPU's kernels: operands travel there, results and states back.

python -m pytest -p tests.gpu.through_gpu tests/ops
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import linger  # noqa: F401  registers the operators first


def through(name: str) -> Any:
    """The CPU's kernel of ``linger::name``: what its CUDA kernel computes."""
    operator = getattr(torch.ops.linger, name).default
    written = [
        argument.alias_info is not None and argument.alias_info.is_write for argument in operator._schema.arguments
    ]

    def kernel(*arguments: Any) -> Any:
        there = pytree.tree_map_only(Tensor, lambda t: t.cuda(), arguments)
        results = operator(*there)
        for here, moved, back in zip(arguments, there, written, strict=False):
            if back:
                here.copy_(moved)
        return pytree.tree_map_only(Tensor, lambda t: t.cpu(), results)

    return kernel


_library = torch.library.Library("linger", "IMPL")
_names = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("linger::")}
for _name in _names:
    if torch._C._dispatch_has_kernel_for_dispatch_key(_name, "CUDA"):
        _short = _name.removeprefix("linger::")
        _library.impl(_short, through(_short), "CPU", allow_override=True)
