"""What DynamiCrafter's layers cost on the host's UNet: one call without them, with them, and other packs' copies of the research UNet, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.dynamicrafter [rounds] [FOLDER ...]

Floor: the call without the layers (the host's UNet with the same weights), times the operations with them over those without (counted by torch), as if every
operation of theirs ran as fast as the average one of the UNet. FOLDER: of a copy of ComfyUI-DynamiCrafterWrapper or ComfyUI_Native_DynamiCrafter, whose `lvdm` is
imported from there; its UNet gets the same weights and inputs. The 512 model's layout and widths, random weights, one clip of 16 frames (both packs run prompt and
negative prompt one after another). Medians of interleaved rounds; other work on the machine shows in the ratios.

    COMFYUI_PATH=... python demo/run.py benchmarks.dynamicrafter memory

counts without computing anything what the tensors of a call take in fp16, for prompt and negative prompt in one call and one after another, beside what the host
reckons with on an NVIDIA card.
"""
import importlib
import inspect
import json
import sys
from pathlib import Path

import torch

from ..demo.in_process import use_host
from .timing import heading, medians, operations, peaks, timed

FRAMES, TEXT, WIDTH, FPS, STEP = 16, 77, 1024, 24, 500
SIDES = {"cpu": (8, 16), "cuda": (40, 64)}  # of the latent
THEIRS = dict(in_channels=8, out_channels=4, model_channels=320, attention_resolutions=[4, 2, 1], num_res_blocks=2, channel_mult=[1, 2, 4, 4], dropout=0.0, num_head_channels=64,
              transformer_depth=1, context_dim=WIDTH, use_linear=True, use_checkpoint=False, temporal_conv=True, temporal_attention=True, temporal_selfatt_only=True,
              use_relative_position=False, use_causal_attention=False, temporal_length=FRAMES, addition_attention=True, image_cross_attention=True, default_fs=FPS, fs_condition=True)


def published() -> dict:
    """{key of the UNet in the 512 file: random numbers that leave ordinary ones after each layer}."""
    from ..tests import lvdm_files
    keys = json.loads((Path(lvdm_files.__file__).parent / "golden" / "dynamicrafter_512_unet_and_image_proj.json").read_text())
    generator = torch.Generator().manual_seed(0)
    shapes = {key.removeprefix("model.diffusion_model."): shape for key, shape in keys.items() if key.startswith("model.diffusion_model.")}
    return {key: torch.randn(shape, generator=generator) / torch.Size(shape[1:]).numel() ** 0.5 if len(shape) > 1 else 1 + 0.1 * torch.randn(shape, generator=generator)
            for key, shape in shapes.items()}


def fork(folder: Path, weights: dict, dtype, x, t, text, tokens):
    """A function that calls the UNet of another pack."""
    sys.path.insert(0, str(folder.parent))
    UNetModel = importlib.import_module(f"{folder.name}.lvdm.modules.networks.openaimodel3d").UNetModel
    with torch.device("meta"):
        net = UNetModel(**THEIRS).eval()
    net.load_state_dict(weights, assign=True)
    net.dtype = dtype
    video, fs = x.transpose(0, 1)[None], torch.tensor([FPS], device=x.device)
    if "img_emb" in inspect.signature(net.forward).parameters:
        return lambda: net(video[:, :4], t[:1], context_in=text, cc_concat=video[:, 4:], num_video_frames=FRAMES, fs=fs, img_emb=tokens, transformer_options={})
    return lambda: net(video, t[:1], torch.cat([text, tokens], 1), fs=fs)


@torch.inference_mode()
def measure(rounds: int, folders: list[Path]) -> None:
    import comfy.ops

    from ..networks.lvdm_files import config_of, reader
    from ..networks.lvdm_unet import Layout, LvdmUNet, as_ours, layout_of
    from ..tests import tiny_models as tiny
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    weights, (h, w) = {key: value.to(device, dtype) for key, value in published().items()}, SIDES[device.type]
    ours = as_ours(weights)
    config = {**config_of(ours, reader("random")), "dtype": dtype}

    def made(layout) -> LvdmUNet:
        """On the same weights as the others."""
        net = LvdmUNet(layout, device="meta", operations=comfy.ops.disable_weight_init, **config).eval()
        net.load_state_dict({key: value for key, value in ours.items() if layout.transformers or not key.startswith("video.")}, assign=True)
        return net

    whole, spatial = made(layout_of(ours)), made(Layout({}, {}, {}, False))
    generator = torch.Generator().manual_seed(1)
    x, text, tokens = (torch.randn(shape, generator=generator).to(device, dtype) for shape in ((FRAMES, 8, h, w), (1, TEXT, WIDTH), (1, 16 * FRAMES, WIDTH)))
    t, fps = torch.full((FRAMES,), float(STEP), device=device), torch.full((FRAMES,), float(FPS), device=device)
    every = text.expand(FRAMES, -1, -1)

    def call(net):
        return net(x, t, every, transformer_options={"cond_or_uncond": [0]}, image_tokens=tokens.expand(FRAMES, -1, -1), fps=fps)

    jobs = {"without": lambda: call(spatial), "with": lambda: call(whole)}
    theirs = {folder.name: fork(folder, weights, dtype, x, t, text, tokens) for folder in folders}
    expected = jobs["with"]()
    for name, job in theirs.items():
        print(f"{name}'s result differs by {tiny.difference(job()[0].transpose(0, 1), expected):.1e}", flush=True)
    jobs |= theirs
    work = {k: operations(jobs[k]) for k in ("without", "with")}
    memory = peaks(device, jobs["without"], jobs["with"])
    s = medians({k: lambda _, job=job: timed(job) for k, job in jobs.items()}, rounds)
    floor = s["without"] * work["with"] / work["without"]
    print(heading(f"DynamiCrafter 512, {FRAMES} frames, {8 * w}x{8 * h}", device, dtype, f"{rounds} rounds"))
    for k in jobs:
        print(f"  {k:32} {1000 * s[k]:9.1f} ms, {s[k] / s['with']:.3f} x with" + (f", {work[k] / 1e9:7.1f} GFLOP, {work[k] / 1e9 / s[k]:7.1f} GFLOP/s" if k in work else ""))
    print(f"  with / floor {s['with'] / floor:.3f}   goal 1.15", flush=True)
    if memory:
        print("  peak memory  {:9.2f} GiB without, {:.2f} GiB with (both models among them)".format(*memory))


def memory() -> None:
    import comfy.model_management
    import comfy.ops
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    from ..networks.lvdm_files import config_of, reader
    from ..networks.lvdm_model import LvdmConfig
    from ..networks.lvdm_unet import LvdmUNet, as_ours, layout_of
    comfy.model_management.pytorch_attention_flash_attention = lambda: True  # as on an NVIDIA card; on a CPU the host reckons with whole attention matrices
    ours, dtype = as_ours(published()), torch.float16
    config, layout = {**config_of(ours, reader("random")), "dtype": dtype}, layout_of(ours)
    made = LvdmConfig(config, layout, 0.7)
    made.set_inference_dtype(dtype, None)
    model = made.get_model({}, device=torch.device("meta"))
    print(f"UNet: {sum(value.numel() for value in ours.values()) / 1e6:.0f} M weights")
    for name, (h, w), clips in (("512", (40, 64), 2), ("512", (40, 64), 1), ("1024", (72, 128), 2), ("1024", (72, 128), 1)):
        n, tracker = clips * FRAMES, MemTracker()
        with FakeTensorMode():
            net = LvdmUNet(layout, operations=comfy.ops.disable_weight_init, **config)
            x, text, tokens = (torch.empty(shape, dtype=dtype) for shape in ((n, 8, h, w), (n, TEXT, WIDTH), (n, 16 * FRAMES, WIDTH)))
            with tracker, torch.no_grad():
                net(x, torch.empty(n), text, transformer_options={"cond_or_uncond": list(range(clips))}, image_tokens=tokens, fps=torch.empty(n))
        (held,) = tracker.get_tracker_snapshot("peak").values()
        weights, whole = (next(v for k, v in held.items() if str(k).endswith(kind)) / 2**30 for kind in ("PARAM", "Total"))
        print(f"  {name}, {clips} x {FRAMES} frames: {weights:.2f} GiB of weights and {whole - weights:.2f} GiB beside them at most; "
              f"the host reckons with {model.memory_required([n, 4, h, w]) / 2**30:.2f} GiB", flush=True)


def main(argv: list[str]) -> None:
    use_host()
    if argv[:1] == ["memory"]:
        return memory()
    measure(int(argv[0]) if argv else 3, [Path(folder).resolve() for folder in argv[1:]])
