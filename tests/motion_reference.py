"""diffusers' UNetMotionModel with the weights of a model of the host and of a motion file. Import as `firstframe.tests.motion_reference`."""
import comfy.patcher_extension as pe
import comfy.utils
import torch
from firstframe.tests import motion_files as files


def call(m, x, t, context, y=None, **options):
    """The UNet's own output for one chunk, with the patches of m."""
    to = {**m.model_options["transformer_options"], "wrappers": pe.copy_nested_dicts(m.wrappers), **options}
    return m.model.diffusion_model(x, t, context, y=y, transformer_options=to)


def diffusers_unet(config: dict, version: str):
    from diffusers import UNetMotionModel
    common = dict(
        cross_attention_dim=config["context_dim"], block_out_channels=tuple(config["model_channels"] * m for m in config["channel_mult"]), norm_num_groups=32,
        motion_num_attention_heads=8, use_motion_mid_block=version == "v2", motion_max_seq_length=files.LENGTHS[version])
    if version == "SDXL":
        return UNetMotionModel(
            down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
            up_block_types=("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion", "UpBlockMotion"),
            transformer_layers_per_block=(1, 2, 3), reverse_transformer_layers_per_block=None, num_attention_heads=(1, 1, 1), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816, **common)
    return UNetMotionModel(num_attention_heads=config["num_heads"], **common)


class OverFrames(torch.nn.Module):
    """A GroupNorm over all frames of a clip, as the official v1 code has it on (b,c,f,h,w)."""

    def __init__(self, norm, frames):
        super().__init__()
        self.norm, self.frames = norm, frames

    def forward(self, x):
        return self.norm(x.unflatten(0, (-1, self.frames)).transpose(1, 2)).transpose(1, 2).flatten(0, 1)


class PerFrame(torch.nn.Module):
    """A GroupNorm of (b,c,f,h,w) frame by frame. The official temporal transformer norms so (golden c1); diffusers' takes its statistics over all frames."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


def reference(model, version: str, motion: dict, frames: int):
    """diffusers' UNetMotionModel with the weights of the host's model and of the motion file, and the official GroupNorms."""
    config = model.model.model_config.unet_config
    unet = diffusers_unet(config, version)
    host = model.model.diffusion_model.state_dict()
    names = comfy.utils.unet_to_diffusers(config)
    weights = {theirs: host[ours] for theirs, ours in names.items() if ours in host and not theirs.startswith("class_embedding")}
    weights |= {k: v for k, v in files.as_diffusers(motion).items()}
    found = unet.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys and not found.missing_keys, found
    for transformer in [m for m in unet.modules() if type(m).__name__ == "AnimateDiffTransformer3D"]:
        transformer.norm = PerFrame(transformer.norm)
    if version == "v1":
        for block in [m for m in unet.modules() if type(m).__name__ == "ResnetBlock2D"]:
            block.norm1, block.norm2 = OverFrames(block.norm1, frames), OverFrames(block.norm2, frames)
        unet.conv_norm_out = OverFrames(unet.conv_norm_out, frames)
    return unet.eval()
