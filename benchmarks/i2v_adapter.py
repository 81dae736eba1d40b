"""What I2V-Adapter's first-frame attention costs: one UNet call without it and with it, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.i2v_adapter [rounds]

Floor: the call without the adapter, times the operations with it over those without (counted by torch), as if every operation of the
branch ran as fast as the average one of the UNet. Random weights; cond and uncond in one batch, prompts of 77 tokens. Medians of
interleaved rounds; other work on the machine shows in the ratios. Memory (CUDA only): goal at most the adapter's weights and one
attention output more.
"""
import torch

from ..demo.in_process import use_host
from .timing import Size, demo_world, heading, medians, on_this_machine, operations, peaks, sd15, timed

CASES = {
    "cpu": {"demo world, 16 frames, 128x128": demo_world(16, 16), "SD1.5, 8 frames, 128x128": sd15(8, 16)},
    "cuda": {"SD1.5, 16 frames, 512x512, fp16": sd15(16, 64)},
}


@torch.inference_mode()
def measure(name: str, size: Size, device, dtype, rounds: int) -> list[dict]:
    import comfy.model_management

    from ..attention_patches.first_frame import patch
    from ..networks.i2v_adapter import i2v_adapter
    from ..tests import i2v_adapter_files as files
    from ..tests import tiny_models as tiny
    from ..tests.motion_reference import call
    model, frames = size.model(device, dtype), size.frames
    m = patch(model, i2v_adapter(files.i2v_adapter(model), "random"), tiny.latents(1, size.side), "benchmark", needs_motion=False)
    comfy.model_management.load_models_gpu([m, *m.get_nested_additional_models()])
    x = tiny.latents(2 * frames, size.side).to(device, dtype)
    text = torch.cat([size.prompt(seed)[0][0] for seed in (1, 2)]).repeat_interleave(frames, 0).to(device, dtype)
    t = torch.full((len(x),), 500.0, device=device)
    jobs = {"without": lambda: call(model, x, t, text, cond_or_uncond=[1, 0]), "with": lambda: call(m, x, t, text, cond_or_uncond=[1, 0])}
    work = {k: operations(job) for k, job in jobs.items()}
    memory = peaks(device, *jobs.values())
    s = medians({k: lambda _, job=job: timed(job) for k, job in jobs.items()}, rounds)
    floor = s["without"] * work["with"] / work["without"]
    print(heading(name, device, dtype, f"{rounds} rounds"))
    for k in jobs:
        print(f"  {k:8} {1000 * s[k]:9.1f} ms, {work[k] / 1e9:7.1f} GFLOP, {work[k] / 1e9 / s[k]:7.1f} GFLOP/s, {s[k] / s['without']:.3f} x without")
    print(f"  with / floor {s['with'] / floor:.3f}   goal 1.1", flush=True)
    if memory:
        print("  peak memory  {:9.2f} GiB without, {:.2f} GiB with".format(*memory))
    return [{"what": f"I2V-Adapter, {name}", "seconds": s["with"], "ratio": s["with"] / s["without"], "floor": s["with"] / floor, "memory": memory}]


def main(argv: list[str]) -> None:
    use_host()
    for case in on_this_machine(CASES):
        measure(*case, int(argv[0]) if argv else 5)
