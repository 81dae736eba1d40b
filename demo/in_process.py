"""The host and the demo's models in this process, for training, measurements and benchmarks (the demo itself runs a server)."""
import os
import sys
from functools import cache
from pathlib import Path

import torch

WEIGHTS = Path(os.environ.get("FIRSTFRAME_WEIGHTS") or Path(__file__).resolve().parent / "weights")  # elsewhere: to train without touching the published ones
CHECKPOINT = WEIGHTS / "checkpoints" / "firstframe_demo.safetensors"
VAE = WEIGHTS / "vae" / "firstframe_demo_vae.safetensors"
CONTROLNET = WEIGHTS / "controlnet" / "firstframe_demo_outlines.safetensors"
NIGHT_LORA = WEIGHTS / "loras" / "firstframe_demo_night.safetensors"
MOTION_WORDS_LORA = WEIGHTS / "loras" / "firstframe_demo_motion_words.safetensors"
MOTION_MODULE = WEIGHTS / "animatediff_models" / "firstframe_demo_motion.safetensors"
MOTION_LORA = WEIGHTS / "animatediff_motion_lora" / "firstframe_demo_pan.safetensors"
CLIP_VISION = WEIGHTS / "clip_vision" / "firstframe_demo_vision.safetensors"
CLIP_TEXT = WEIGHTS / "loras" / "firstframe_demo_text_projection.safetensors"
CONTENT_ADAPTER = WEIGHTS / "ipadapter" / "firstframe_demo_content.safetensors"
I2V_ADAPTER = WEIGHTS / "i2v_adapter" / "firstframe_demo_i2v.safetensors"
DYNAMICRAFTER = WEIGHTS / "dynamicrafter_models" / "firstframe_demo_dynamicrafter.safetensors"


@cache
def use_host(attention: str | None = "--use-pytorch-cross-attention") -> None:
    """Makes the host's own network classes importable; COMFYUI_PATH names the ComfyUI folder. attention: the host's option for it, None: its default."""
    root = os.environ.get("COMFYUI_PATH")
    if not root or not Path(root, "comfy").is_dir():
        raise SystemExit(f"COMFYUI_PATH should name a ComfyUI folder, it is {root!r}.")
    sys.path.insert(0, root)
    argv, sys.argv = sys.argv, [sys.argv[0], *filter(None, [attention])] + ([] if torch.cuda.is_available() else ["--cpu"])
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401  (reads argv now)
    sys.argv = argv


@cache
def load():
    """(model, clip, vae) through the host's own loaders."""
    use_host()
    import comfy.sd
    import comfy.utils

    from . import comfy_support  # noqa: F401  (registers the demo model's class)
    model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT), output_vae=False)
    return model, clip, comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE)))


def encode(clip, texts) -> list:
    """CONDITIONING with one entry of the batch per text."""
    one = [clip.encode_from_tokens_scheduled(clip.tokenize(text))[0] for text in texts]
    return [[torch.cat([c for c, _ in one]), one[0][1]]]


def ksampler(model, latent: dict, positive, negative, *, seed: int, steps: int, cfg: float, sampler="euler", scheduler="normal", denoise=1.0, noise=None,
             callback=None, sigmas=None) -> torch.Tensor:
    """What the KSampler node computes. noise: instead of the seed's; sigmas: instead of the schedule's; callback: of the host, (step, denoised, x, steps)."""
    import comfy.sample
    z = latent["samples"]
    noise = comfy.sample.prepare_noise(z, seed) if noise is None else noise
    return comfy.sample.sample(model, noise, steps, cfg, sampler, scheduler, positive, negative, z, denoise=denoise,
                               noise_mask=latent.get("noise_mask"), callback=callback, sigmas=sigmas, disable_pbar=True, seed=seed)
