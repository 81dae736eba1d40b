"""A mask of the whole picture at the places and sizes that a call of the UNet sees: cropped as the host crops the latent for an
area prompt, and resized once for each size of features."""
import torch
import torch.nn.functional as F
from comfy.samplers import add_area_dims

AREAS = "firstframe_areas"  # in transformer_options


def area_of(cond: dict, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(y, x, h, w) of a conditioning in latents of `size`, as the host's get_area_and_mult has it."""
    if "area" not in cond:
        return 0, 0, *size
    area = add_area_dims(list(cond["area"]), 2)
    half = len(area) // 2
    (h, w), (y, x) = area[:2], area[half:half + 2]
    return y, x, min(size[0] - y, h), min(size[1] - x, w)


def note_areas(executor, model, conds, x_in, timestep, model_options):
    """A CALC_COND_BATCH wrapper: the call of the UNet is told the size of the whole latent, and each conditioning's area by its uuid."""
    size = tuple(x_in.shape[2:])
    areas = {c["uuid"]: area_of(c, size) for entries in conds for c in entries or () if "uuid" in c}
    options = {**model_options.get("transformer_options", {}), AREAS: (size, areas)}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})


def crops_of(options: dict, size: tuple[int, int], who: str):
    """(size of the whole latent, area of each conditioning in this call), or None if the call of `size` [h,w] shows all of it.

    Raises ValueError for a part that no area prompt has cut out. Outside the host's sampling the call counts as all of it.
    """
    whole, areas = options.get(AREAS, (size, {}))
    if whole == size:
        return None
    found = [areas.get(uuid, ()) for uuid in options.get("uuids", ())]
    if not found or any(area[2:] != size for area in found):
        raise ValueError(
            f"{who}: its mask is of the whole picture ({list(whole)} latent cells), the model is called on a part of {list(size)} that no area prompt names, "
            f"so where the mask lies in it is not known. Disconnect the mask, or take off the node that samples in tiles."
        )
    return whole, found


class CallMask:
    """For one call: mask [1 or F,H,W] at the frames `numbers` of each of `clips` clips. crops: of `crops_of`."""

    def __init__(self, mask: torch.Tensor, numbers, clips: int, crops=None):
        self.picked = (mask[list(numbers)] if len(mask) > 1 else mask)[:, None]
        self.frames, self.clips, self.crops, self.kept = len(numbers), clips, crops, {}

    def parts(self, like: torch.Tensor) -> list[torch.Tensor]:
        """What each conditioning of the call shows of the mask: one entry if all show all of it."""
        self.picked = self.picked.to(like)
        if self.crops is None:
            return [self.picked]
        whole, areas = self.crops
        at_latent = F.interpolate(self.picked, whole, mode="bilinear", antialias=True)
        return [at_latent[:, :, y:y + h, x:x + w] for y, x, h, w in areas]

    def at(self, like: torch.Tensor) -> torch.Tensor:
        """[c*f,1,h,w] for features [c*f,C,h,w]."""
        place = (*like.shape[2:], like.dtype)
        if place not in self.kept:
            parts = [F.interpolate(part, size=like.shape[2:], mode="bilinear", antialias=True) for part in self.parts(like)]
            self.kept[place] = torch.cat([part.expand(self.frames, -1, -1, -1).repeat(self.clips // len(parts), 1, 1, 1) for part in parts])
        return self.kept[place]
