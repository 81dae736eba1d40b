"""diffusers' UNetMotionModel with the weights of a model of the host and of a motion file. Import as `firstframe.tests.motion_reference`."""
import comfy.patcher_extension as pe
import comfy.utils
import torch
from firstframe.attention_patches import unet_call
from firstframe.attention_patches.inserted_layers import insert
from firstframe.networks.motion_module_files import motion_module
from firstframe.tests import motion_files as files
from firstframe.tests import tiny_models as tiny


def call(m, x, t, context, y=None, **options):
    """The UNet's own output for one chunk, with the patches of m."""
    to = {**m.model_options["transformer_options"], "wrappers": pe.copy_nested_dicts(m.wrappers), **options}
    to[unet_call.CALL] = unet_call.Seen(to, m.model, m)  # as the host's apply_model hands it on
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
            transformer_layers_per_block=tuple(max(1, depth) for depth in config["transformer_depth"][::2]), reverse_transformer_layers_per_block=None,
            num_attention_heads=tuple(max(1, config["model_channels"] * m // 64) for m in config["channel_mult"]), use_linear_projection=True,
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
    with torch.device("meta"):
        unet = diffusers_unet(config, version)
    host = model.model.diffusion_model.state_dict()
    names = comfy.utils.unet_to_diffusers(config)
    weights = {theirs: host[ours] for theirs, ours in names.items() if ours in host and not theirs.startswith("class_embedding")}
    weights |= {k: v for k, v in files.as_diffusers(motion).items()}
    found = unet.load_state_dict(weights, strict=False, assign=True)
    assert not found.unexpected_keys and not found.missing_keys, found
    for transformer in [m for m in unet.modules() if type(m).__name__ == "AnimateDiffTransformer3D"]:
        transformer.norm = PerFrame(transformer.norm)
    if version == "v1":
        for block in [m for m in unet.modules() if type(m).__name__ == "ResnetBlock2D"]:
            block.norm1, block.norm2 = OverFrames(block.norm1, frames), OverFrames(block.norm2, frames)
        unet.conv_norm_out = OverFrames(unet.conv_norm_out, frames)
    return unet.eval()


@torch.no_grad()
def both(model, version: str, motion: dict, side: int = 16, frames: int = 5, clips: int = 2) -> tuple:
    """(with the module in the host's UNet, diffusers' UNetMotionModel, the host's UNet alone) for the same random latents, t and prompts."""
    context_dim = model.model.model_config.unet_config["context_dim"]
    layers = motion_module(motion, "f")
    m = insert(model, layers, "reference", over_all_frames=layers.over_frames)
    generator = torch.Generator().manual_seed(8)
    x, context = tiny.latents(clips * frames, side), torch.randn(clips, 7, context_dim, generator=generator)
    t, y, extra = torch.tensor([500.0]), None, {}
    unet = reference(model, version, motion, frames)
    if version == "SDXL":
        pooled, ids = torch.randn(clips, 1280, generator=generator), torch.tensor([[128.0, 128, 0, 0, 128, 128]] * clips)
        y = torch.cat([pooled, unet.add_time_proj(ids.flatten()).reshape(clips, -1)], 1).repeat_interleave(frames, 0)
        extra = dict(added_cond_kwargs={"text_embeds": pooled, "time_ids": ids})
    context = context.repeat_interleave(frames, 0)
    ours, alone = (call(which, x, t.expand(len(x)), context, y, cond_or_uncond=list(range(clips))) for which in (m, model))
    return ours, unet(x.unflatten(0, (clips, frames)).transpose(1, 2), t, context, **extra).sample.transpose(1, 2).flatten(0, 1), alone
