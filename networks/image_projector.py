"""DynamiCrafter's text-aligned image embedding (Xing et al. 2023, 3.2): the tokens that a query transformer draws from all that CLIP sees of a picture."""
from dataclasses import dataclass
from functools import partial

import comfy.model_management
import comfy.model_patcher
import torch

from .image_projection import ResamplerSize, image_projection
from .lvdm_files import LOADER, Version, look
from .patcher import in_patcher

TOWERS = {1280: "ViT-H/14", 1024: "ViT-L/14", 1664: "ViT-bigG/14", 768: "ViT-B"}  # by the width of their features


@dataclass(frozen=True)
class ImageProjector:
    """What FF_IMAGE_PROJECTOR wires carry. patcher: the host's, around a Resampler of `size`; version: of the model in the same file."""

    patcher: comfy.model_patcher.ModelPatcher
    name: str
    size: ResamplerSize
    version: Version

    def features(self, clip_vision, picture: torch.Tensor, who: str) -> torch.Tensor:
        """[1,l,E]: what CLIP's last block says of [1,h,w,3], before its last norm. Raises ValueError for a CLIP of another width."""
        found = clip_vision.encode_image(picture, crop=True)["last_hidden_state"]
        width, wanted = found.shape[-1], self.size.embedding
        if width != wanted:
            raise ValueError(f"{who}: {self.name!r} takes image features that are {wanted} wide ({TOWERS.get(wanted, 'another CLIP')}), this CLIP_VISION gives {width} "
                             f"({TOWERS.get(width, 'another one')}). Connect the one of {LOADER}, or the right one of Load CLIP Vision (CLIP-ViT-H-14-laion2B-s32B-b79K).")
        return found

    @torch.no_grad()
    def tokens(self, features: torch.Tensor) -> torch.Tensor:
        """[b,m,D] in float32: 16 for each frame of 16, frame after frame."""
        comfy.model_management.load_models_gpu([self.patcher])
        return self.patcher.model(features.float().to(self.patcher.load_device)).float().to(comfy.model_management.intermediate_device())


def again(source, name: str, chosen: str, size: ResamplerSize) -> dict:
    """The weights for another copy. Raises ValueError when the file is another one by now."""
    found = look(source(), name, chosen)
    if found.size != size:
        raise ValueError(f"{LOADER} read {name!r}, which has been replaced by another model since. Give that one a name of its own, press R and choose it.")
    return found.projection


def image_projector(source, name: str, chosen: str, contents) -> ImageProjector | None:
    """source(): the file's tensors, each time that the host needs another copy; contents: what `look` found in them. None for a model that takes no picture."""
    if contents.size is None:
        return None
    read = partial(again, source, name, chosen, contents.size)
    return ImageProjector(in_patcher(partial(image_projection, contents.size), contents.projection, read), name, contents.size, contents.version)
