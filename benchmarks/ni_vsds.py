"""What NI-VSDS costs beside the sampler: its iterations and as many steps of the host's euler, both guided, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.ni_vsds [rounds]

Both spend one guided model call at each of the same noise levels, through the host's guider with its progress and callbacks; random weights, prompts of 77
tokens. Medians of interleaved rounds; other work on the machine shows in the ratio. Goal: at most 1.02.
"""
import torch

from ..demo.in_process import use_host
from .timing import Size, demo_world, heading, medians, on_this_machine, peaks, sd15, timed

CASES = {
    "cpu": {"demo world, 16 frames, 128x128": demo_world(16, 16), "SD1.5, 4 frames, 128x128": sd15(4, 16)},
    "cuda": {"SD1.5, 16 frames, 512x512, fp16": sd15(16, 64)},
}
STEPS = 4
GOAL = 1.02


@torch.inference_mode()
def measure(name: str, size: Size, device, dtype, rounds: int) -> list[dict]:
    import comfy.sample
    import comfy.samplers

    from ..samplers.ni_vsds import Course, NIVSDSSampler
    from ..tests import tiny_models as tiny
    model, still = size.model(device, dtype), tiny.latents(1, size.side).repeat(size.frames, 1, 1, 1)
    noise, said = tiny.latents(size.frames, size.side, seed=9), (size.prompt(1), size.prompt(2))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)

    def run(sampler):
        comfy.sample.sample_custom(model, noise, 7.5, sampler, sigmas, *said, still, callback=lambda *_: None, disable_pbar=True, seed=1)

    jobs = {"euler": lambda: run(comfy.samplers.sampler_object("euler")), "NI-VSDS": lambda: run(NIVSDSSampler(Course((1.0,), 0.0)))}
    for job in jobs.values():
        job()
    memory = peaks(device, *jobs.values())
    s = medians({k: lambda _, job=job: timed(job) / STEPS for k, job in jobs.items()}, rounds)
    ratio = s["NI-VSDS"] / s["euler"]
    print(heading(name, device, dtype, f"{rounds} rounds"))
    for k in jobs:
        print(f"  {k:8} {1000 * s[k]:9.1f} ms for a step")
    print(f"  NI-VSDS / euler {ratio:.3f}   goal {GOAL}", flush=True)
    if memory:
        print("  peak memory  {:9.2f} GiB euler, {:.2f} GiB NI-VSDS".format(*memory))
    return [{"what": f"NI-VSDS, {name}", "seconds": s["NI-VSDS"], "ratio": ratio, "floor": None, "memory": memory}]


def main(argv: list[str]) -> None:
    use_host()
    for case in on_this_machine(CASES):
        measure(*case, int(argv[0]) if argv else 9)
