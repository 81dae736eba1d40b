"""The motion attention map of a tiny UNet written out, and the node with settings of its own. Import as `firstframe.tests.attention_map_reference`."""
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import BasicTransformerBlock
from firstframe.nodes.attention_map import MotionAttentionMap
from firstframe.prompts.tokens import MotionTokens
from firstframe.samplers.ddim import sigmas_of
from firstframe.tests import tiny_models as tiny

SETTINGS = dict(start_timestep=700, end_timestep=300, count=2, seed=7, smoothing=0.0, gamma=1.0, threshold=0.0)
TOKENS = MotionTokens((2, 4), 7, ("moving", "right"))
Z = tiny.latents(1)


def node(m, z=Z, positive=None, tokens=TOKENS, **settings) -> torch.Tensor:
    return MotionAttentionMap.execute(m, {"samples": z}, positive or tiny.conditioning(1), tokens, **{**SETTINGS, **settings}).result[0]


@contextmanager
def listening(m, addresses):
    """{block address: [(q, k)]} as the layers' own projections give them, by hooks on the modules of the model itself."""
    heard, handles, unet = {}, [], m.model.diffusion_model
    for address in addresses:
        stage, number = address
        block = {"input": unet.input_blocks, "middle": [unet.middle_block], "output": unet.output_blocks}[stage][number]
        for i, transformer in enumerate(layer for layer in block.modules() if isinstance(layer, BasicTransformerBlock)):
            parts = heard.setdefault((stage, number, i), {"q": [], "k": [], "heads": transformer.attn2.heads})
            for name, layer in (("q", transformer.attn2.to_q), ("k", transformer.attn2.to_k)):
                handles.append(layer.register_forward_hook(lambda mod, a, out, to=parts[name]: to.append(out.float())))
    yield heard
    for h in handles:
        h.remove()


def slow_map(m, addresses, columns, positive=None, z=Z, steps=(700, 300), seed=7):
    """A written out: apply_model on z + sigma noise; full softmax, columns, mean over heads, resize, mean over layers and timesteps, min-max."""
    positive = positive or tiny.conditioning(1)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad(), listening(m, addresses) as heard:
        for sigma in sigmas_of(m.get_model_object("model_sampling"), steps):
            x = m.get_model_object("latent_format").process_in(z) + sigma * noise
            y = {"y": m.model.encode_adm(**positive[0][1], width=8 * z.shape[-1], height=8 * z.shape[-2], device=tiny.CPU)} if m.model.adm_channels else {}
            m.model.apply_model(x, sigma[None], c_crossattn=positive[0][0], **y)
    maps = []
    for parts in heard.values():
        assert len(parts["q"]) == len(parts["k"]) == len(steps)
        for q, k in zip(parts["q"], parts["k"]):
            q, k = (t.unflatten(-1, (parts["heads"], -1)).transpose(1, 2) for t in (q, k))
            weights = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, -1)
            side = int(q.shape[2] ** 0.5)
            a = weights[..., list(columns)].sum(-1).mean(1).view(1, 1, side, -1)
            maps.append(F.interpolate(a, size=z.shape[-2:], mode="bilinear")[0, 0])
    a = torch.stack(maps).mean(0)
    return ((a - a.min()) / (a.max() - a.min()))[None]


# which layers work at 1, 1/2, 1/4 and 1/8 of the latent
HALVED = {
    "SD1.5": {0: [("input", 1), ("input", 2), ("output", 9), ("output", 10), ("output", 11)],
              1: [("input", 4), ("input", 5), ("output", 6), ("output", 7), ("output", 8)],
              2: [("input", 7), ("input", 8), ("output", 3), ("output", 4), ("output", 5)], 3: [("middle", 0)]},
    "SDXL": {1: [("input", 4), ("input", 5), ("output", 3), ("output", 4), ("output", 5)],
             2: [("input", 7), ("input", 8), ("middle", 0), ("output", 0), ("output", 1), ("output", 2)]},
}
HALVED["demo"] = HALVED["SD1.5"]
