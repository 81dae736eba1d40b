"""What a DynamiCrafter file brings besides its UNet: text encoder, VAE and image tower, each by the host's own loader. None where the file was pruned of it."""
from functools import partial

import comfy.clip_vision
import comfy.sd
import folder_paths

from .files import Reader

TEXT_TOWER, IMAGE_TOWER = "the text encoder of OpenCLIP ViT-H/14", "the image tower of OpenCLIP ViT-H/14"
LAYERS = {TEXT_TOWER: (24, 1024), IMAGE_TOWER: (32, 1280)}  # the host has room for these alone
IN_LAYER = ("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias", "ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias",
            "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")
AROUND = {TEXT_TOWER: ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"),
          IMAGE_TOWER: ("class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias", "ln_post.weight", "ln_post.bias", "proj")}
VAE_WEIGHTS = 248


def check_tower(sd: dict, what: str, says: Reader) -> None:
    """Raises ValueError for a tower with holes, or of another size: the host would load either without a word. Its file may leave out the last text layer, which is not read."""
    layers, width = LAYERS[what]
    kept = layers - (what is TEXT_TOWER)
    lacks = [key for key in (*AROUND[what], *(f"transformer.resblocks.{i}.{name}" for i in range(kept) for name in IN_LAYER)) if key not in sd]
    if lacks:
        raise says.refuse(f"one whose text encoder or image tower lacks {lacks[0]} (expected is {what})")
    if sd["transformer.resblocks.0.ln_1.weight"].shape != (width,):
        raise says.refuse(f"one with another tower in place of {what}")


def text_encoder(read, says: Reader, disable_dynamic: bool = False):
    """CLIP, or None. read(): the weights under OpenCLIP's names."""
    if not (sd := read()):
        return None
    check_tower(sd, TEXT_TOWER, says)
    clip = comfy.sd.load_text_encoder_state_dicts([dict(sd)], folder_paths.get_folder_paths("embeddings"), disable_dynamic=disable_dynamic)
    clip.patcher.cached_patcher_init = (text_patcher, (read, says))
    return clip


def text_patcher(read, says: Reader, disable_dynamic: bool = False):
    """The signature is that of the host's own."""
    return text_encoder(read, says, disable_dynamic).patcher


def vae(read, says: Reader):
    """VAE, or None."""
    sd = {key: value for key, value in read().items() if not key.startswith("loss.")}
    if not sd:
        return None
    if len(sd) != VAE_WEIGHTS:
        raise says.refuse(f"a VAE of {len(sd)} weights instead of {VAE_WEIGHTS}")
    found = comfy.sd.VAE(sd=sd)
    found.throw_exception_if_invalid()
    found.patcher.cached_patcher_init = (vae_patcher, (read, says))
    return found


def vae_patcher(read, says: Reader, disable_dynamic: bool = False):
    return vae(read, says).patcher


def image_tower(read, says: Reader):
    """CLIP_VISION, or None."""
    if not (sd := read()):
        return None
    check_tower(sd, IMAGE_TOWER, says)
    return comfy.clip_vision.load_clipvision_from_sd(dict(sd), prefix="", convert_keys=True)


def towers(source, contents_of, contents, says: Reader) -> tuple:
    """(CLIP, VAE, CLIP_VISION). source(): the file's tensors, contents_of(tensors) what `look` finds; contents: what it found the first time."""
    first = {"text": contents.text, "vae": contents.vae, "vision": contents.vision}

    def read(part: str) -> dict:
        """The first time what was read already; then it is let go."""
        return first.pop(part) if part in first else getattr(contents_of(source()), part)

    return tuple(make(partial(read, part), says) for make, part in ((text_encoder, "text"), (vae, "vae"), (image_tower, "vision")))
