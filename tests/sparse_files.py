"""SparseCtrl models with random weights under the published names, and diffusers' SparseControlNetModel with the same. Import as `firstframe.tests.sparse_files`."""
import torch
from firstframe.networks.sparse_ctrl import Layout, shapes
from firstframe.networks.sparse_ctrl_files import names
from firstframe.tests import motion_files
from firstframe.tests import tiny_models as tiny

KINDS = ("rgb", "scribble")


def layout(kind: str, config: dict = tiny.SD15) -> Layout:
    """Of a SparseCtrl for the UNet of that configuration."""
    C = config["model_channels"]
    return Layout(tuple(C * m for m in config["channel_mult"]), config["num_res_blocks"][0], tuple(config["transformer_depth"]), config["context_dim"], kind == "rgb")


def model(kind: str, config: dict = tiny.SD15, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of a file; no layer is zero."""
    own, generator, sd = layout(kind, config), torch.Generator().manual_seed(seed), {}
    found = shapes(own)
    for theirs, ours in names(own).items():
        shape = found[ours]
        noise = torch.randn(shape, generator=generator)
        key = theirs
        if "motion_modules" in theirs:
            place, _, rest = theirs.partition("motion_modules.")
            number, _, rest = rest.partition(".")
            key = f"{place}motion_modules.{number}.temporal_transformer.{rest}"
        sd[key] = noise / shape[1:].numel() ** 0.5 if len(shape) > 1 else (1 if "norm" in key and key.endswith("weight") else 0) + 0.1 * noise
        if key.endswith("attention_blocks.0.to_q.weight"):
            sd[key.replace("to_q.weight", "pos_encoder.pe")] = torch.zeros(1, 32, shape[0])  # not used: they are computed
    return sd


def as_diffusers(sd: dict) -> dict:
    return {k: v for k, v in motion_files.as_diffusers(sd).items() if not k.endswith(".pe")}


def reference(kind: str, sd: dict, config: dict = tiny.SD15):
    """diffusers' class. Its temporal transformers take GroupNorm over all frames, the official ones frame by frame."""
    from diffusers import SparseControlNetModel
    from firstframe.tests.motion_reference import PerFrame
    own = layout(kind, config)
    levels = len(own.widths)
    made = SparseControlNetModel(
        conditioning_channels=own.hint_channels - 1, block_out_channels=own.widths, cross_attention_dim=own.context, layers_per_block=own.blocks,
        down_block_types=tuple("CrossAttnDownBlockMotion" if own.depths[i * own.blocks] else "DownBlockMotion" for i in range(levels)),
        use_simplified_condition_embedding=own.latents)
    found = made.load_state_dict(as_diffusers(sd), strict=False)
    assert not found.unexpected_keys and all(k.endswith("pos_embed.pe") for k in found.missing_keys), found
    for transformer in [m for m in made.modules() if type(m).__name__ == "AnimateDiffTransformer3D"]:
        transformer.norm = PerFrame(transformer.norm)
    return made.eval()
