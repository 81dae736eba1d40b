"""GroupNorms of the UNet over all frames of a clip, as AnimateDiff v1 and I2V-Adapter were trained."""
from contextlib import ExitStack, contextmanager

import torch

from .unet import res_blocks


def norms(unet) -> list[torch.nn.Module]:
    """Those that are taken over all frames: of the ResBlocks, and the last one."""
    return [seq[0] for block in res_blocks(unet) for seq in (block.in_layers, block.out_layers)] + [unet.out[0]]


@contextmanager
def over_frames(modules, clips: int):
    """Meanwhile the GroupNorms in `modules` take mean and variance over all frames of a clip: [c*f,C,h,w] goes in as [c,C,f,h,w]."""
    def together(module, args):
        x, = args
        return x.unflatten(0, (clips, -1)).transpose(1, 2),

    def apart(module, args, out):
        return out.transpose(1, 2).flatten(0, 1)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(together).remove)
            stack.callback(module.register_forward_hook(apart).remove)
        yield
