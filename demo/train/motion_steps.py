"""One training step of the motion module: which frames of which clips at which noise, and the losses."""
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..world import shapes
from .clips import FRAMES, SPINNING, few_frames, pick_clips
from .denoising import denoising_loss, timesteps
from .host_layers import OPTIONS
from .motion_readers import MotionReaders

BATCH = 32   # frames
READ = 3.0   # weight of the readers' loss at the highest learning rate


def alphas_cumprod() -> torch.Tensor:
    """AnimateDiff's schedule."""
    from comfy.ldm.modules.diffusionmodules.util import make_beta_schedule

    from ...networks.motion_module_files import SCHEDULES
    schedule, first, last = SCHEDULES["SD1.5"]
    return torch.cumprod(1 - torch.as_tensor(make_beta_schedule(schedule, 1000, first, last), dtype=torch.float64), 0).float()


def inserted(net, layers: dict, numbers, seen: dict):
    """Meanwhile the module `net` runs at its places, on clips of the frames `numbers`; the features after it are kept in
    `seen`. contiguous: torch's GroupNorm crashes going backward from a channels-last input to a gradient that is none."""
    from ...attention_patches.inserted_layers import added

    def add(place, h):
        out = net.get_submodule(place)(h.contiguous(), numbers, OPTIONS)
        seen[place] = h + out
        return out

    return added(layers, add)


def timesteps_in(first: int, last: int):
    """A function that draws n timesteps, first to last - 1."""
    return lambda n: torch.randint(first, last, (n,))


@dataclass(frozen=True)
class Kind:
    """One kind of training step."""
    share: float          # of steps
    few: bool             # few frames of many clips; else whole clips
    levels: Callable      # n → timesteps [n]
    weight: float = 1.0   # of the picture's loss


high_noise, middle_noise = timesteps_in(600, 1000), timesteps_in(250, 800)  # where it is decided which way a shape goes; how it turns
KINDS = Kind(0.3, True, high_noise), Kind(0.5, False, middle_noise, weight=3.0), Kind(0.2, False, timesteps)


def loss_of_clips(unet, text, net, layers: dict, readers: MotionReaders, pool: dict, captions, tokens, abar, rng, kinds=KINDS, spinning: float = SPINNING) -> tuple:
    """One step's (loss, readers' loss), of clips that make up BATCH frames, by the captions that captions([index]) returns. rng draws the kind of step and what is seen."""
    kind = rng.choices(kinds, [k.share for k in kinds])[0]
    numbers = few_frames(rng) if kind.few else list(range(FRAMES))
    pick = pick_clips(pool["captions"], BATCH // len(numbers), rng, spinning)
    z, far, paths = (pool[k][pick][:, numbers].flatten(0, 1) for k in ("z", "distance", "paths"))
    with inserted(net, layers, numbers, readers.seen):
        loss = denoising_loss(unet, text, z.float(), far < 1, tokens(captions(pick)), abar, frames=len(numbers), levels=kind.levels)
    return kind.weight * loss, readers.loss(shapes.coverage(far.float()), paths)
