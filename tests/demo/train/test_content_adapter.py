"""The demo's Content-Adapter in training: what is trained is what the node computes; the published format."""
import random

import torch
from firstframe.attention_patches.dual_cross import patch
from firstframe.demo.train import content_adapter as train
from firstframe.demo.train.clip_pair import build as clip_pair
from firstframe.demo.train.files import save_half
from firstframe.demo.train.host_layers import OPTIONS
from firstframe.demo.train.latents import load_encoder
from firstframe.networks.content_adapter import content_adapter
from firstframe.tests import tiny_models as tiny
from firstframe.tests.motion_reference import call
from safetensors.torch import load_file


@torch.no_grad()
def test_what_is_trained_is_what_the_node_computes(tmp_path):
    model = tiny.model("demo")
    unet = model.model.diffusion_model
    trained, layers = train.build(unet, train.size_for(128))
    save_half(trained.state_dict(), tmp_path / "a.safetensors", 3)
    read = content_adapter(load_file(tmp_path / "a.safetensors"), "a")
    for part, own in (("image_proj", read.projection), ("ip_adapter", read.patcher)):
        trained[part].load_state_dict({k: v.float() for k, v in own.model.state_dict().items()})
    tokens = trained["image_proj"](torch.randn(1, 65, 128))
    x, text = tiny.latents(2, 16), torch.randn(2, 7, 64)
    with train.attending(layers, trained, lambda: tokens.expand(2, -1, -1)):
        seen = unet(x, torch.full((2,), 500), text, transformer_options=OPTIONS)
    patched = patch(model, read, (tokens, tokens), "N")
    with_node = call(patched, x, torch.full((2,), 500.0), text)
    assert torch.allclose(seen, with_node, atol=1e-3)
    assert (seen - unet(x, torch.full((2,), 500), text, transformer_options=OPTIONS)).abs().max() > 0.01


def test_clip_sees_another_moment_than_the_one_that_is_denoised():
    torch.manual_seed(1)
    tower, _, _ = clip_pair()
    pool = train.draw(load_encoder(), tower, 40, 7)
    assert pool["z"].shape == (40, 4, 16, 16) and pool["features"].shape == (40, 65, 128) and len(pool["captions"]) == len(pool["near"]) == 40
    rng = random.Random("content 7")
    s, *times = train.scene.random_scene(rng), rng.random(), rng.random()
    now, other = (train.features(tower, train.normalised(s.draw([t]).permute(0, 3, 1, 2)))[0] for t in times)
    assert torch.allclose(pool["features"][0].float(), other.float(), atol=0.05) and not torch.allclose(pool["features"][0].float(), now.float(), atol=0.05)
