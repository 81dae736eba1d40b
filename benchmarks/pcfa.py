"""What PCFAPatch costs: one UNet step without it, with it, and the floor, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.pcfa [rounds] [default]

Floor: the plain step, minus its own self-attention, plus the attention that Eq. 15 asks for (each frame's queries over
the keys and values of its set, laid out beforehand). Gathering, grouping and bookkeeping are what lies above it.
Random weights; the step goes through the host's guider with cond and uncond in one batch and prompts of 77 tokens.
Medians of interleaved rounds; other work on the machine shows in the ratios, so repeat with more rounds in doubt.
Attention is torch's; `default` leaves the choice to the host, which on a CPU takes a slower one.
"""
from collections import Counter
from functools import partial

import torch

from ..demo.in_process import use_host
from .timing import Size, demo_world, heading, medians, on_this_machine, peaks, sd15, timed, two_fifths

CASES = {
    "cpu": {"demo world, 8 frames, 128x128": demo_world(8, 16), "SD1.5 layout at 2/5 width, 8 frames, 256x256": two_fifths(8, 32)},
    "cuda": {"SD1.5, 16 frames, 512x512, fp16": sd15(16, 64)},
}


def pieces(b: int, n: int, frames: int, plan) -> list[tuple[int, int]]:
    """The self-attention of a batch b of n tokens as (rows, keys per row), one entry per size of set. plan: as from `groups`; None: each frame itself."""
    return [(b, n)] if plan is None else [(b // frames * len(positions), len(sources[0]) * n) for positions, sources in plan]


def self_attentions(step, model, z) -> list:
    """(shape of q as a tuple, heads) of every self-attention of one plain step(model, z)."""
    calls, watching = [], model.clone()

    def watch(func, q, k, v, heads, *args, **kwargs):
        if q.shape == k.shape:
            calls.append((tuple(q.shape), heads))
        return func(q, k, v, heads, *args, **kwargs)

    watching.model_options["transformer_options"]["optimized_attention_override"] = watch
    step(watching, z)
    return calls


def measure(name: str, size: Size, device, dtype, rounds: int) -> list[dict]:
    from comfy.ldm.modules.attention import optimized_attention

    from ..attention_patches.cross_frame import groups, patch
    from ..attention_patches.pcfa import attended, draws
    from ..nodes.pilife import chooser
    from ..tests import tiny_models as tiny

    step = partial(tiny.sample, positive=size.prompt(1), negative=size.prompt(2))
    model, frames = size.model(device, dtype), size.frames
    z, patched = tiny.latents(frames, size.side), patch(model, chooser("PCFA", 0.5, 0), "benchmark")
    plan = groups(attended(tuple(range(frames)), "PCFA", 0.5, draws(0, 0, frames)))

    def random(*shape):
        return torch.randn(shape, device=device, dtype=dtype)

    with torch.inference_mode():
        work = Counter(self_attentions(step, model, z))

        def attention(plan) -> float:
            """Seconds of all self-attentions of a step, on tensors laid out beforehand; one of each shape is run and counted."""
            total = 0.0
            for ((b, n, c), heads), times in work.items():
                tensors = [(random(rows, n, c), random(rows, keys, c), random(rows, keys, c)) for rows, keys in pieces(b, n, frames, plan)]
                total += times * timed(lambda t=tensors, h=heads: [optimized_attention(q, k, v, h) for q, k, v in t])
            return total

        jobs = {"without": lambda _: timed(lambda: step(model, z)), "with": lambda _: timed(lambda: step(patched, z)),
                "own attention": lambda _: attention(None), "wanted attention": lambda _: attention(plan)}
        medians(jobs, 1)  # the first round is slower
        memory = peaks(device, lambda: step(model, z), lambda: step(patched, z))
        t = medians(jobs, rounds)
    floor = t["without"] - t["own attention"] + t["wanted attention"]
    print(heading(name, device, dtype, f"{rounds} rounds"))
    for k, v in (("without PCFA", t["without"]), ("floor", floor), ("with PCFA", t["with"])):
        print(f"  {k:14} {1000 * v:9.1f} ms   {v / t['without']:.3f} x without")
    print(f"  with / floor   {t['with'] / floor:9.3f}      goal 1.15", flush=True)
    if memory:
        print("  peak memory    {:9.2f} GiB without, {:.2f} GiB with".format(*memory))
    return [{"what": f"PCFA, {name}", "seconds": t["with"], "ratio": t["with"] / t["without"], "floor": t["with"] / floor, "memory": memory}]


def main(argv: list[str]) -> None:
    rounds = int(argv[0]) if argv else 9
    use_host(None) if "default" in argv else use_host()
    for case in on_this_machine(CASES):
        measure(*case, rounds)
