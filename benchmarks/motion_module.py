"""What a motion module costs: one UNet call without it, with it, and diffusers' UNetMotionModel of the same shape and weights, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.motion_module [rounds]
    COMFYUI_PATH=... python demo/run.py benchmarks.motion_module exact [versions]

Floor: the call without the module, times the operations with it over those without (counted by torch), as if every
operation of the temporal layers ran as fast as the average one of the UNet. Random weights (v3); cond and uncond in one
batch, prompts of 77 tokens. Medians of interleaved rounds; other work on the machine shows in the ratios.

`exact` prints instead how far the whole UNets of all versions are from diffusers' at the published channel sizes, in
float32, relative to the largest value: 3 frames of 8x8 latents (SDXL needs 16 GB).
"""
import torch

from ..demo.in_process import use_host
from .timing import Size, demo_world, heading, medians, on_this_machine, operations, peaks, sd15, timed

CASES = {
    "cpu": {"demo world, 16 frames, 128x128": demo_world(16, 16), "SD1.5, 8 frames, 128x128": sd15(8, 16)},
    "cuda": {"SD1.5, 16 frames, 512x512, fp16": sd15(16, 64)},
}
PUBLISHED = {  # version: (shape, what differs from the tests' tiny models)
    **dict.fromkeys(("v1", "v2", "v3"), ("SD1.5", dict(model_channels=320, channel_mult=[1, 2, 4, 4], context_dim=768))),
    "SDXL": ("SDXL", dict(model_channels=320, channel_mult=[1, 2, 4], context_dim=2048, transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_middle=10,
                          transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10])),
}


@torch.inference_mode()
def measure(name: str, size: Size, device, dtype, rounds: int) -> list[dict]:
    import comfy.model_management

    from ..attention_patches.inserted_layers import insert
    from ..networks.motion_module_files import motion_module
    from ..tests import motion_files as files
    from ..tests import tiny_models as tiny
    from ..tests.motion_reference import call, reference
    model, frames = size.model(device, dtype), size.frames
    sd = files.module(model, "v3")
    m = insert(model, motion_module(sd, "random"), "benchmark")
    comfy.model_management.load_models_gpu([m, *m.get_nested_additional_models()])
    theirs = reference(model, "v3", sd, frames).to(device, dtype)
    x = tiny.latents(2 * frames, size.side).to(device, dtype)
    text = torch.cat([size.prompt(seed)[0][0] for seed in (1, 2)]).repeat_interleave(frames, 0).to(device, dtype)
    t, video = torch.tensor([500.0], device=device), x.unflatten(0, (2, frames)).transpose(1, 2)
    jobs = {"without": lambda: call(model, x, t.expand(len(x)), text, cond_or_uncond=[1, 0]),
            "with": lambda: call(m, x, t.expand(len(x)), text, cond_or_uncond=[1, 0]),
            "diffusers": lambda: theirs(video, t, text).sample}
    apart = tiny.difference(jobs["with"](), jobs["diffusers"]().transpose(1, 2).flatten(0, 1))
    work = {k: operations(job) for k, job in jobs.items()}
    memory = peaks(device, jobs["without"], jobs["with"])
    s = medians({k: lambda _, job=job: timed(job) for k, job in jobs.items()}, rounds)
    floor = s["without"] * work["with"] / work["without"]
    print(heading(name, device, dtype, f"{rounds} rounds; results differ by {apart:.1e}"))
    for k in jobs:
        print(f"  {k:12} {1000 * s[k]:9.1f} ms, {work[k] / 1e9:7.1f} GFLOP, {work[k] / 1e9 / s[k]:7.1f} GFLOP/s, {s[k] / s['without']:.3f} x without")
    print(f"  with / floor     {s['with'] / floor:.3f}   goal 1.1\n  with / diffusers {s['with'] / s['diffusers']:.3f}", flush=True)
    if memory:
        print("  peak memory  {:9.2f} GiB without, {:.2f} GiB with (diffusers' copy among them)".format(*memory))
    return [{"what": f"motion module, {name}", "seconds": s["with"], "ratio": s["with"] / s["without"], "floor": s["with"] / floor, "memory": memory}]


def exact(versions) -> None:
    from ..tests import motion_files as files
    from ..tests import tiny_models as tiny
    from ..tests.motion_reference import both
    for version in versions:
        shape, size = PUBLISHED[version]
        model = tiny.model(shape, **size)
        ours, theirs, alone = both(model, version, files.module(model, version), side=8, frames=3, clips=1)
        print(f"{version}: {tiny.difference(ours, theirs):.1e} from diffusers' (without the module {tiny.difference(alone, theirs):.1e})", flush=True)


def main(argv: list[str]) -> None:
    use_host()
    if argv[:1] == ["exact"]:
        return exact(argv[1:] or PUBLISHED)
    rounds = int(argv[0]) if argv else 5
    for case in on_this_machine(CASES):
        measure(*case, rounds)
