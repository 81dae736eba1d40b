"""A LoRA that was trained beside a network says the same when it is added to the weights."""
import torch
from firstframe.demo.train.low_rank import LowRank, add_lora


def net():
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"attn": torch.nn.Conv2d(4, 6, 3, padding=1), "other": torch.nn.Linear(6, 5), "attn_out": torch.nn.Linear(5, 3)})


def run(layers, x):
    return layers["attn_out"](layers["other"](layers["attn"](x).flatten(2).mT))


def test_beside_and_added():
    x, beside, added, again = torch.randn(2, 4, 8, 8), net(), net(), net()
    lora = LowRank(beside, "attn")
    assert list(lora.pairs) == ["attn", "attn_out"] and torch.equal(run(beside, x), run(added, x))  # it adds nothing at first
    for p in lora.parameters():
        torch.nn.init.normal_(p, std=0.3)
    sd = lora.tensors("lora_unet_")
    add_lora(added, sd, "lora_unet_")
    torch.testing.assert_close(run(beside, x), run(added, x))
    assert (run(added, x) - run(net(), x)).abs().max() > 0.1
    copied = LowRank(again, "attn")
    copied.load(sd, "lora_unet_")
    assert torch.equal(run(again, x), run(beside, x))
    lora.strength = 0.0
    assert torch.equal(run(beside, x), run(net(), x))
