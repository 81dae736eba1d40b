"""LoRA: low-rank layers beside those of a network, to be trained, saved in kohya's format, added to weights."""
import torch

RANK = 8


def low_rank(m) -> tuple:
    """(down, up) beside a linear or a convolution layer; up is 0 at first."""
    if isinstance(m, torch.nn.Linear):
        down, up = torch.nn.Linear(m.in_features, RANK, bias=False), torch.nn.Linear(RANK, m.out_features, bias=False)
    else:
        down, up = torch.nn.Conv2d(m.in_channels, RANK, m.kernel_size, m.stride, m.padding, bias=False), torch.nn.Conv2d(RANK, m.out_channels, 1, bias=False)
    torch.nn.init.zeros_(up.weight)
    return down, up


def kohya_key(prefix: str, name: str) -> str:
    return prefix + name.replace(".", "_")


class LowRank:
    """Adds strength * up(down(x)) to the output of the linear and convolution layers of `net` whose name has one of `where` in it. pairs: {name: (down, up)}."""

    def __init__(self, net, *where: str):
        self.pairs, self.strength = {}, 1.0
        for name, m in net.named_modules():
            if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) and any(w in name for w in where):
                down, up = self.pairs[name] = low_rank(m)
                m.register_forward_hook(lambda m, args, out, down=down, up=up: out + self.strength * up(down(args[0])))

    def parameters(self) -> list:
        return [layer.weight for pair in self.pairs.values() for layer in pair]

    def load(self, sd: dict, prefix: str) -> None:
        """Takes what there is for its layers in a LoRA in kohya's format."""
        for name, (down, up) in self.pairs.items():
            key = kohya_key(prefix, name)
            if f"{key}.lora_up.weight" in sd:
                down.weight.data.copy_(sd[f"{key}.lora_down.weight"])
                up.weight.data.copy_(sd[f"{key}.lora_up.weight"])

    def tensors(self, prefix: str) -> dict:
        """kohya's format."""
        sd = {}
        for name, (down, up) in self.pairs.items():
            key = kohya_key(prefix, name)
            sd |= {f"{key}.lora_down.weight": down.weight.data, f"{key}.lora_up.weight": up.weight.data, f"{key}.alpha": torch.tensor(float(RANK))}
        return sd


def add_lora(net, sd: dict, prefix: str) -> None:
    """Adds a LoRA in kohya's format, of rank RANK, to the weights of `net`."""
    for name, m in net.named_modules():
        key = kohya_key(prefix, name)
        if f"{key}.lora_up.weight" in sd:
            up, down = (sd[f"{key}.lora_{part}.weight"].float().flatten(1) for part in ("up", "down"))
            m.weight.data += (up @ down).view_as(m.weight)
