"""Lets the host recognise the demo world's checkpoint, SD1.5 with the same blocks at the same addresses but narrow, and its CLIP image tower.

A folder for `custom_nodes` of the demo and the tests; it holds no nodes and is not part of the pack that users install.
"""
import comfy.clip_vision
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base

TEXT = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, hidden_act="quick_gelu",
            max_position_embeddings=77, eos_token_id=49407)


class DemoTextEncoder(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006  (the host's signature)
        super().__init__(device=device, dtype=dtype, model_options=model_options, textmodel_json_config=dict(TEXT), return_projected_pooled=False)


class DemoCLIP(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
        super().__init__(device=device, dtype=dtype, model_options=model_options, clip_model=DemoTextEncoder)


class FirstFrameDemo(comfy.supported_models.SD15):
    """Attention at 16x16, 8x8, 4x4 and, in the middle, 2x2 latents; 4 heads."""

    unet_config = dict(comfy.supported_models.SD15.unet_config, context_dim=64, model_channels=64)
    unet_extra_config = {"num_heads": 4, "num_head_channels": -1}

    def clip_target(self, state_dict={}):  # noqa: B006
        return comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, DemoCLIP)


# What model_detection finds in the checkpoint, written down once for whoever builds the network without a file.
UNET = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=64, num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 1, 1, 1],
    transformer_depth=[1] * 6 + [0] * 2, transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1, context_dim=64,
    use_linear_in_transformer=False, adm_in_channels=None, use_spatial_transformer=True, legacy=False, use_checkpoint=False,
    use_temporal_resblock=False, use_temporal_attention=False,
)

if FirstFrameDemo not in comfy.supported_models.models:
    comfy.supported_models.models.append(FirstFrameDemo)

# CLIP's image tower, for pictures of 128 px. Its space is that of the text encoder's projection.
VISION = dict(model_type="clip_vision_model", hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, hidden_act="quick_gelu", image_size=128,
              patch_size=16, num_channels=3, projection_dim=64)
KNOWN_TOWERS = comfy.clip_vision.load_clipvision_from_sd


def load_clipvision_from_sd(sd, prefix="", convert_keys=False):
    """The host tells towers by their number of layers and has no list to add one to."""
    position = sd.get("vision_model.embeddings.position_embedding.weight")
    if position is None or position.shape[-1] != VISION["hidden_size"]:
        return KNOWN_TOWERS(sd, prefix, convert_keys)
    clip = comfy.clip_vision.ClipVisionModel(VISION)
    clip.load_sd(sd)
    return clip


if KNOWN_TOWERS.__module__ == comfy.clip_vision.__name__:
    comfy.clip_vision.load_clipvision_from_sd = load_clipvision_from_sd

NODE_CLASS_MAPPINGS = {}
