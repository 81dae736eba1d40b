"""Deep supervision for the motion module: what each of its layers should know, asked of each.

Linear layers read, from the features after each temporal layer, where the shape lies and how it has moved since the
middle of the clip: the word times the frame's number. They are thrown away afterwards.
"""
import math

import torch
import torch.nn.functional as F

from ..world import scene

READING = 3e-3  # the readers' learning rate
UNITS = (16.0, 16.0, 0.25, 0.5)  # of a path: px, px, logarithm of the size, radians


def path(s: scene.Scene, frames: int) -> torch.Tensor:
    """[frames,4], in UNITS: how far the shape has moved, grown and turned since the middle of the clip. NaN for two shapes."""
    if len(s.bodies) > 1:
        return torch.full((frames, 4), torch.nan)
    body = s.bodies[0]
    (x0, y0, s0, a0), at = body.at(0.5), [body.at(i / (frames - 1)) for i in range(frames)]
    return torch.tensor([[x - x0, y - y0, math.log(size / s0), a - a0] for x, y, size, a in at]) / torch.tensor(UNITS)


def readers_loss(read: torch.Tensor, covered: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
    """read [...,5]: what is read from a cell in a frame; covered [...,1]: how much of the cell a shape covers, 0 to 1; paths [...,4], where they are known."""
    return F.binary_cross_entropy_with_logits(read[..., :1], covered) + 2 * (read[..., 1:] - paths).nan_to_num().square().mean()


class MotionReaders:
    """One for each place of the module, over the features' channels. seen: {place: features [c*f,C,h,w]} of the UNet's last call."""

    def __init__(self, net, layers: dict):
        self.heads, self.seen = {place: torch.nn.Linear(net.get_submodule(place).proj_in.in_features, 1 + len(UNITS)) for place in layers}, {}

    def parameters(self) -> list:
        return [p for head in self.heads.values() for p in head.parameters()]

    def loss(self, covered: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        """covered [c*f,1,h,w]: how much of each cell the shape covers; paths [c*f,4]. Every cell is read by itself."""
        losses = []
        for place, head in self.heads.items():
            x = self.seen[place].float()
            share = F.adaptive_avg_pool2d(covered, x.shape[2:]).flatten(2).mT
            losses.append(readers_loss(head(F.group_norm(x, 32).flatten(2).mT), share, paths[:, None]))
        return sum(losses) / len(losses)
