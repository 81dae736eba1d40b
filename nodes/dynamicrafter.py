"""Nodes of DynamiCrafter and VideoCrafter. They wire; networks and files are in networks/lvdm_*.py, the picture's preparation is in samplers/dynamicrafter.py."""
from functools import partial

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io
from node_helpers import conditioning_set_values

from ..attention_patches.dual_cross import weigh
from ..networks.image_projector import ImageProjector, image_projector
from ..networks.lvdm_files import AUTO, BOTH, LOADER, VERSIONS, look, reader
from ..networks.lvdm_model import CONCAT, FPS, IMAGE_TOKENS, LvdmModel, from_file
from ..networks.lvdm_towers import towers
from ..samplers.dynamicrafter import BLANKS, FITS, FRAME, GREY, OFFICIAL, VIEWS, beside_noise, blank, fitted, seen
from ..samplers.embeddings import check_width
from ..samplers.motion_noise import mask_to_attention
from ..samplers.start_noise import check_mask
from .content_adapter import check_pictures
from .folders import read, register_folder
from .inputs import Node

ImageProjectorWire = io.Custom("FF_IMAGE_PROJECTOR")
FOLDER = "dynamicrafter_models"  # that users of ComfyUI_Native_DynamiCrafter have
ALIASES = ["FirstFrame", "DynamiCrafter", "image to video", "i2v", "video"]
WHO, EMBED = "DynamiCrafter Conditioning", "Text-Aligned Image Embedding"
TEXT = {768: "CLIP-L, as in SD1.5", 1280: "OpenCLIP-bigG", 1024: "OpenCLIP-H, as in SD2.1", 2048: "SDXL's"}  # by the width of its embeddings

register_folder(FOLDER, "checkpoints", "diffusion_models")


class DynamiCrafterLoader(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_DynamiCrafterLoader",
            display_name="Load DynamiCrafter",
            category="FirstFrame/DynamiCrafter",
            search_aliases=[*ALIASES, "interpolation", "loop", "LVDM", "VideoCrafter", "checkpoint"],
            description="Reads a DynamiCrafter file (256, 512, 512 interpolation, 1024) or a VideoCrafter one (1, 2), official or pruned. The model is the host's own UNet with the video's "
                        "layers added: samplers, LoRA, ControlNet (of SD2.1) and offloading work as on any other.",
            inputs=[
                io.Combo.Input("dynamicrafter", options=folder_paths.get_filename_list(FOLDER),
                               tooltip="A file of models/checkpoints, models/diffusion_models or models/dynamicrafter_models, such as dynamicrafter_512_interp_v1_bf16.safetensors."),
                io.Combo.Input("version", options=[AUTO, *VERSIONS], default=AUTO,
                               tooltip="auto: told by what is in the file. Choose it for files that do not say it: 512 and 512 interpolation are alike, and some pruned files do not tell "
                                       "512 from 1024."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For LoRA, ControlNet and the sampler."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder, where the file has one. Else Load CLIP brings the one of SD2.1 (OpenCLIP-H)."),
                io.Vae.Output(display_name="vae", tooltip="Where the file has one. Else Load VAE brings any of SD1.5."),
                io.ClipVision.Output(display_name="clip_vision", tooltip="Where the file has it. Else Load CLIP Vision brings CLIP-ViT-H-14-laion2B-s32B-b79K."),
                ImageProjectorWire.Output(display_name="image_projector", tooltip="For DynamiCrafter Conditioning: makes tokens of a picture. None for models of text alone."),
            ],
        )

    @classmethod
    def execute(cls, dynamicrafter, version) -> io.NodeOutput:
        source = partial(read, FOLDER, dynamicrafter, LOADER)
        contents = look(source(), dynamicrafter, version)
        clip, vae, clip_vision = towers(source, partial(look, name=dynamicrafter, chosen=version), contents, reader(dynamicrafter))
        model = from_file(source, dynamicrafter, version, contents)
        return io.NodeOutput(model, clip, vae, clip_vision, image_projector(source, dynamicrafter, version, contents))


def one_picture(image: torch.Tensor, who: str, name: str) -> torch.Tensor:
    """[1,h,w,3]. Raises ValueError for another count, and as check_pictures."""
    check_pictures(image, who, name)
    if len(image) != 1:
        raise ValueError(f"{who} takes one picture in {name!r}, got {len(image)}. Choose one with Get Image from Batch.")
    return image[..., :3].float().cpu()


def check_text(projector: ImageProjector, said, who: str, name: str) -> None:
    """Raises ValueError unless the prompt is as wide as the tokens that the model reads."""
    for c, _ in said:
        if c.shape[-1] != projector.size.width:
            wanted, found = (f"{TEXT.get(width, 'another one')}, {width} wide" for width in (projector.size.width, c.shape[-1]))
            raise ValueError(f"{who}: {projector.name!r} needs the text encoder {wanted}; {name!r} comes from {found}. Encode it with the CLIP of {LOADER}, or of Load CLIP "
                             f"with the text encoder of SD2.1.")


def with_tokens(positive, negative, projector: ImageProjector, clip_vision, shown: torch.Tensor, no_picture: str, who: str) -> tuple:
    """Both with image tokens: of the picture `shown` [1,h,w,3], and of no picture."""
    for name, said in (("positive", positive), ("negative", negative)):
        check_text(projector, said, who, name)
    tokens = projector.tokens(torch.cat([projector.features(clip_vision, picture, who) for picture in (shown, blank(no_picture))]))
    return tuple(conditioning_set_values(said, {IMAGE_TOKENS: tokens[i:i + 1]}) for i, said in enumerate((positive, negative)))


def prompts() -> list:
    return [io.Conditioning.Input("positive", tooltip="What is to be seen, and how it moves. From CLIP Text Encode."),
            io.Conditioning.Input("negative", tooltip="The official scripts leave the text empty.")]


def of_picture() -> list:
    return [ImageProjectorWire.Input("image_projector", tooltip="From Load DynamiCrafter."),
            io.ClipVision.Input("clip_vision", tooltip="From Load DynamiCrafter, or Load CLIP Vision with CLIP-ViT-H-14-laion2B-s32B-b79K.")]


def blanks() -> io.Combo.Input:
    return io.Combo.Input("no_picture", options=list(BLANKS), default=GREY, optional=True, advanced=True,
                          tooltip="What the negative prompt's image tokens are made of. The official code takes mid grey, other packs black or noise: choose it to get their clips again.")


SAID = [io.Conditioning.Output(display_name="positive", tooltip="The same prompt with the picture, for the sampler."),
        io.Conditioning.Output(display_name="negative", tooltip="The same prompt with tokens of no picture, for the sampler.")]


class TextAlignedImageEmbedding(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_TextAlignedImageEmbedding",
            display_name="Text-Aligned Image Embedding (DynamiCrafter)",
            category="FirstFrame/DynamiCrafter",
            search_aliases=[*ALIASES, "image tokens", "image prompt"],
            description="Adds DynamiCrafter's tokens of a picture to prompts, and nothing else. DynamiCrafter Conditioning does that and the rest; after it, this node puts another picture "
                        "in place of what the model understands of the first, while the first stays what it starts from.",
            inputs=[*prompts(), *of_picture(), io.Image.Input("image", tooltip="One picture. It is squashed to a square, as the model was trained."), blanks()],
            outputs=[*SAID],
        )

    @classmethod
    def execute(cls, positive, negative, image_projector, clip_vision, image, no_picture=GREY) -> io.NodeOutput:
        picture = one_picture(image, EMBED, "image")
        return io.NodeOutput(*with_tokens(positive, negative, image_projector, clip_vision, seen(picture, picture, FRAME), no_picture, EMBED))


class DynamiCrafterConditioning(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_DynamiCrafterConditioning",
            display_name="DynamiCrafter Conditioning",
            category="FirstFrame/DynamiCrafter",
            search_aliases=[*ALIASES, "interpolation", "two pictures", "first frame last frame", "loop"],
            description="One picture, two, or one at both ends become what DynamiCrafter samples from. Goes between the prompts and the sampler; the latent is for denoise 1.",
            inputs=[
                *prompts(), *of_picture(),
                io.Vae.Input("vae", tooltip="From Load DynamiCrafter or Load VAE (any of SD1.5)."),
                io.Image.Input("image", tooltip="The picture that is to move; with end_image the first frame."),
                io.Int.Input("width", default=512, min=64, max=4096, step=64,
                             tooltip="Pixels. Trained: 256 x 256, 512 x 320, 1024 x 576. Other sizes take the time of their pixels and look worse the farther they are."),
                io.Int.Input("height", default=320, min=64, max=4096, step=64, tooltip="Pixels."),
                io.Int.Input("frames", default=16, min=2, max=1024, tooltip="Of the clip. Trained: 16. For more, put context windows of 16 on the model."),
                io.Int.Input("fps", default=0, min=0, max=120,
                             tooltip="Frames per second as the model was told in training; lower moves more. 0: what the version was shown most (512: 24, 1024: 10, interpolation: 5). "
                                     "For 256 the stride between frames (0: 3); higher moves more. The saved video's rate is another thing."),
                io.Image.Input("end_image", optional=True, tooltip="The last frame, for the interpolation model. Of the same size as image."),
                io.Boolean.Input("loop", default=False, optional=True,
                                 tooltip="On: the picture is first and last frame (interpolation model). Leave out the last frame of the result, with Get Image from Batch."),
                io.Combo.Input("fit", options=list(FITS), default=OFFICIAL, optional=True, advanced=True,
                               tooltip="How the picture becomes a frame. The official way and cut scale it and cut out its middle; stretch changes its proportions."),
                io.Combo.Input("clip_sees", options=list(VIEWS), default=FRAME, optional=True, advanced=True,
                               tooltip="What CLIP sees of the picture. The official script squashes the frame to a square, the official page the whole picture; others cut out a square."),
                blanks(),
            ],
            outputs=[*SAID, io.Latent.Output(display_name="latent", tooltip="Empty, one entry a frame: for the sampler, with denoise 1.")],
        )

    @classmethod
    def execute(cls, positive, negative, image_projector, clip_vision, vae, image, width, height, frames, fps, end_image=None, loop=False, fit=OFFICIAL, clip_sees=FRAME,
                no_picture=GREY) -> io.NodeOutput:
        picture, last = one_picture(image, WHO, "image"), None if end_image is None else one_picture(end_image, WHO, "end_image")
        if last is not None and loop:
            raise ValueError(f"{WHO} got an end_image, and 'loop' is on, which puts the first picture there. Disconnect end_image or switch loop off.")
        beside = image_projector.version.channels == BOTH
        if not beside and (last is not None or loop):
            raise ValueError(f"{WHO}: {image_projector.name!r} is a VideoCrafter, which takes no last picture. Disconnect end_image and switch loop off, or choose DynamiCrafter's "
                             f"interpolation model in {LOADER}.")
        if last is not None and last.shape != picture.shape:
            sizes = (f"{p.shape[2]} x {p.shape[1]}" for p in (last, picture))
            raise ValueError("{} got an end_image of {} pixels for an image of {}. Scale one of them to the other's size (Upscale Image).".format(WHO, *sizes))
        frame = fitted(picture, width, height, fit)
        positive, negative = with_tokens(positive, negative, image_projector, clip_vision, seen(picture, frame, clip_sees), no_picture, WHO)
        more = {FPS: fps or image_projector.version.fps}
        if beside:
            first = vae.encode(frame)
            end = first if loop else None if last is None else vae.encode(fitted(last, width, height, fit))
            more[CONCAT] = beside_noise(first, end, frames)
        return io.NodeOutput(*(conditioning_set_values(said, more) for said in (positive, negative)), empty(width, height, frames))


def empty(width: int, height: int, frames: int) -> dict:
    """LATENT of a clip that begins as noise."""
    return {"samples": torch.zeros(frames, 4, height // 8, width // 8, device=comfy.model_management.intermediate_device()), "downscale_ratio_spacial": 8}


class VideoCrafterConditioning(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_VideoCrafterConditioning",
            display_name="VideoCrafter Conditioning (text to video)",
            category="FirstFrame/DynamiCrafter",
            search_aliases=["FirstFrame", "VideoCrafter", "VideoCrafter2", "text to video", "t2v", "fps", "video"],
            description="Tells VideoCrafter 1 or 2 the rate of the clip, and makes its empty latent. The one that takes a picture has DynamiCrafter Conditioning.",
            inputs=[
                io.Model.Input("model", tooltip="From Load DynamiCrafter: a VideoCrafter for text alone. It is only looked at."),
                *prompts(),
                io.Int.Input("width", default=512, min=64, max=4096, step=64, tooltip="Pixels. Trained: 512 x 320, VideoCrafter1 1024 for 1024 x 576."),
                io.Int.Input("height", default=320, min=64, max=4096, step=64, tooltip="Pixels."),
                io.Int.Input("frames", default=16, min=2, max=1024, tooltip="Of the clip. Trained: 16. For more, put context windows of 16 on the model."),
                io.Int.Input("fps", default=28, min=1, max=120,
                             tooltip="Frames per second as the model was told in training: the official scripts take 28, their page 16. Lower moves more. VideoCrafter1 512 hears none."),
            ],
            outputs=[io.Conditioning.Output(display_name="positive", tooltip="The same prompt, for the sampler."),
                     io.Conditioning.Output(display_name="negative", tooltip="The same prompt, for the sampler."),
                     io.Latent.Output(display_name="latent", tooltip="Empty, one entry a frame: for the sampler, with denoise 1.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, width, height, frames, fps) -> io.NodeOutput:
        who, found = "VideoCrafter Conditioning", model.model
        if not isinstance(found, LvdmModel) or not found.model_config.videocrafter:
            raise ValueError(f"{who} needs a VideoCrafter in 'model', got {'a DynamiCrafter' if isinstance(found, LvdmModel) else type(found).__name__}. "
                             f"Choose one in {LOADER}; for DynamiCrafter there is DynamiCrafter Conditioning.")
        for name, said in (("positive", positive), ("negative", negative)):
            check_width(model, said, who, name)
        return io.NodeOutput(*(conditioning_set_values(said, {FPS: fps}) for said in (positive, negative)), empty(width, height, frames))


class DualCrossAttentionPatch(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_DualCrossAttentionPatch",
            display_name="Dual Cross-Attention (DynamiCrafter)",
            category="FirstFrame/DynamiCrafter",
            search_aliases=[*ALIASES, "image weight", "image strength", "cross attention"],
            description="How much DynamiCrafter looks at its picture beside the text, where and when. The picture that stands beside the noise is not touched.",
            inputs=[
                io.Model.Input("model", tooltip="From Load DynamiCrafter, with any LoRA. Left unchanged; the weight is on the output."),
                io.Float.Input("weight", default=1.0, min=-1.0, max=3.0, step=0.01,
                               tooltip="How much the picture counts beside the text. 1: as trained, exactly as without this node; 0: only the text counts there. Lower follows the text "
                                       "more."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where in sampling the weight begins, as a share of the noise schedule (0: from the first step). At or above end_percent the node does nothing."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where it ends (1: never); after it the picture counts as trained. 0 switches the node off."),
                io.Mask.Input("mask", optional=True, tooltip="Scales the weight from place to place, 0 to 1: one mask for all frames or one a frame. Left out: 1 everywhere."),
                io.Int.Input("frames", default=0, min=0, max=4096, optional=True, advanced=True,
                             tooltip="Frames of one clip when the latent holds several clips one after another. 0: the whole batch is one clip."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, with that weight.")],
        )

    @classmethod
    def execute(cls, model, weight, start_percent, end_percent, mask=None, frames=0) -> io.NodeOutput:
        who = "Dual Cross-Attention"
        if mask is not None:
            check_mask(mask, who, "mask")
            mask = mask_to_attention(mask, *mask.shape[-2:])[:, 0]
        return io.NodeOutput(weigh(model, who, weight=weight, mask=mask, frames=frames, start_percent=start_percent, end_percent=end_percent))
