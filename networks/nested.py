"""Networks whose parts have names with dots, as files have them."""
from torch import nn


def nested(root: nn.Module, name: str, made: nn.Module) -> None:
    """Makes `made` the part `name` of root."""
    *path, last = name.split(".")
    for step in path:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root._modules[step]
    root.add_module(last, made)
