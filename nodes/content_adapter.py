"""Nodes of I2V-Adapter's Content-Adapter, which is an IP-Adapter. They wire; networks and files are in networks/, their place in the UNet in attention_patches/."""
from functools import partial

import folder_paths
import torch
from comfy_api.latest import io

from ..attention_patches.dual_cross import check_fits, patch
from ..networks.content_adapter import LOADER, content_adapter, image_tokens
from ..samplers.motion_noise import mask_to_attention
from ..samplers.start_noise import check_mask
from .folders import read, register_folder
from .inputs import Node
from .number_lists import numbers

ContentAdapterWire = io.Custom("CONTENT_ADAPTER")
FOLDER = "ipadapter"  # that users of the IPAdapter pack have
WHO = "Apply Content-Adapter"
SAME = "from the same file"

register_folder(FOLDER)


def check_pictures(pictures: torch.Tensor, who: str, name: str) -> None:
    """Raises ValueError unless [b,h,w,3 or more] holds finite values, at least one."""
    if pictures.ndim != 4 or pictures.shape[-1] < 3 or not pictures.numel() or not torch.isfinite(pictures).all():
        what = "a picture with NaN or infinite values" if pictures.ndim == 4 and pictures.numel() and pictures.shape[-1] > 2 else f"one of {list(pictures.shape)}"
        raise ValueError(f"{who} needs pictures [frames, height, width, 3] in {name!r}, got {what}. Look at the node that is connected to it.")


class ContentAdapterLoader(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_ContentAdapterLoader",
            display_name="Load Content-Adapter (IP-Adapter)",
            category="FirstFrame/I2V-Adapter",
            search_aliases=["FirstFrame", "IP-Adapter", "IPAdapter", "ip adapter", "I2V-Adapter", "image prompt", "reference image", "plus face", "full face"],
            description="Reads an IP-Adapter (plain, plus, plus-face, full-face; SD1.5 or SDXL), with which a picture takes part in the prompt. The kind is told by what is in the file.",
            inputs=[
                io.Combo.Input("content_adapter", options=folder_paths.get_filename_list(FOLDER),
                               tooltip="A file of models/ipadapter, such as ip-adapter-plus_sd15.safetensors; its kind must be that of the checkpoint (SD1.5 or SDXL). "
                                       "I2V-Adapter's animatediff_v15_v1_ipplus.pth too, with image_projection."),
                io.Combo.Input("image_projection", options=[SAME, *folder_paths.get_filename_list(FOLDER)], default=SAME, optional=True, advanced=True,
                               tooltip="The file whose half that makes tokens of a picture is used. For a file that lacks it: ip-adapter-plus_sd15 for animatediff_v15_v1_ipplus.pth."),
            ],
            outputs=[ContentAdapterWire.Output(display_name="content_adapter", tooltip="For Apply Content-Adapter.")],
        )

    @classmethod
    def execute(cls, content_adapter, image_projection=SAME) -> io.NodeOutput:
        other = None if image_projection == SAME else (partial(read, FOLDER, image_projection, LOADER), image_projection)
        return io.NodeOutput(load(partial(read, FOLDER, content_adapter, LOADER), content_adapter, other))


load = content_adapter  # the node's input has the same name


class ContentAdapterApply(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_ContentAdapterApply",
            display_name="Apply Content-Adapter (IP-Adapter)",
            category="FirstFrame/I2V-Adapter",
            search_aliases=["FirstFrame", "IP-Adapter", "IPAdapter", "ip adapter", "I2V-Adapter", "image prompt", "reference image", "image to video", "i2v", "video"],
            description="Lets a picture take part in the prompt: the UNet's cross-attention also looks at tokens of the picture. Keeps its subject and style in every frame.",
            inputs=[
                io.Model.Input("model", tooltip="SD1.5 or SDXL model, with any LoRA or ControlNet. Left unchanged; the picture is on the output."),
                ContentAdapterWire.Input("content_adapter", tooltip="From Load Content-Adapter, of the same kind as the model."),
                io.ClipVision.Input("clip_vision", tooltip="From Load CLIP Vision: the one that the file was trained with. ViT-H/14 for SD1.5 and for files with vit-h in their "
                                                           "name, ViT-bigG/14 for ip-adapter_sdxl."),
                io.Image.Input("image", tooltip="The picture; CLIP sees the square in its middle. One for all frames, or one a frame."),
                io.Float.Input("weight", default=1.0, min=-1.0, max=3.0, step=0.01,
                               tooltip="How much the picture counts beside the text. 0: off, exactly as without this node; 1: as trained. Lower leaves more to the text."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where in sampling it begins, as a share of the noise schedule (0: from the first step). At or above end_percent the node does nothing."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where it ends (1: never). Lower values leave the last steps' detail to the text; 0 switches the node off."),
                io.Mask.Input("mask", optional=True, tooltip="Scales the weight from place to place, 0 to 1: one mask for all frames or one a frame. Left out: 1 everywhere."),
                io.String.Input("weights_per_frame", default="", optional=True, advanced=True,
                                tooltip="One number for each frame with commas between them, such as 1.0, 0.8, 0.6, 0.4; each is multiplied by weight. Empty: 1 for every frame."),
                io.Int.Input("frames", default=0, min=0, max=4096, optional=True, advanced=True,
                             tooltip="Frames of one clip when the latent holds several clips one after another. 0: the whole batch is one clip."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, which now also looks at the picture.")],
        )

    @classmethod
    def execute(cls, model, content_adapter, clip_vision, image, weight, start_percent, end_percent, mask=None, weights_per_frame="", frames=0) -> io.NodeOutput:
        weights = numbers(weights_per_frame, WHO, "weights_per_frame", -10, 10, "1.0, 0.8, 0.6") or None
        check_pictures(image, WHO, "image")
        check_fits(model, content_adapter, WHO)
        if mask is not None:
            check_mask(mask, WHO, "mask")
            mask = mask_to_attention(mask, *mask.shape[-2:])[:, 0]
        tokens = image_tokens(content_adapter, clip_vision, image, WHO)
        return io.NodeOutput(patch(model, content_adapter, tokens, WHO, weight=weight, weights=weights, mask=mask, frames=frames,
                                   start_percent=start_percent, end_percent=end_percent))
