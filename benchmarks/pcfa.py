"""What PCFAPatch costs: one UNet step without it, with it, and the floor, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.pcfa [rounds] [default]

Floor: the plain step, minus its own self-attention, plus the attention that Eq. 15 asks for (each frame's queries over
the keys and values of its set, laid out beforehand). Gathering, grouping and bookkeeping are what lies above it.
Random weights; the step goes through the host's guider with cond and uncond in one batch and prompts of 77 tokens.
Medians of interleaved rounds; other work on the machine shows in the ratios, so repeat with more rounds in doubt.
Attention is torch's; `default` leaves the choice to the host, which on a CPU takes a slower one.
"""
import statistics
import time
from functools import partial

import torch

from ..demo.in_process import use_host

CASES = {  # name: (shape, width, widths per level, width of the prompt, frames, latent side)
    "cpu": {"demo world, 8 frames, 128x128": ("demo", 64, [1, 1, 1, 1], 64, 8, 16),
            "SD1.5 layout at 2/5 width, 8 frames, 256x256": ("SD1.5", 128, [1, 2, 4, 4], 768, 8, 32)},
    "cuda": {"SD1.5, 16 frames, 512x512, fp16": ("SD1.5", 320, [1, 2, 4, 4], 768, 16, 64)},
}


def timed(function) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def prompt(width: int, seed: int) -> list:
    return [[torch.randn(1, 77, width, generator=torch.Generator().manual_seed(seed)), {}]]


def peak(job) -> float:
    """GiB that CUDA holds at most during one job."""
    torch.cuda.reset_peak_memory_stats()
    job()
    return torch.cuda.max_memory_allocated() / 2**30


def pieces(b: int, n: int, frames: int, plan) -> list[tuple[int, int]]:
    """The self-attention of a batch b of n tokens as (rows, keys per row), one entry per size of set. plan: as from `groups`; None: each frame itself."""
    return [(b, n)] if plan is None else [(b // frames * len(positions), len(sources[0]) * n) for positions, sources in plan]


def self_attentions(step, model, z) -> list:
    """(shape of q, heads) of every self-attention of one plain step(model, z)."""
    calls, watching = [], model.clone()

    def watch(func, q, k, v, heads, *args, **kwargs):
        if q.shape == k.shape:
            calls.append((q.shape, heads))
        return func(q, k, v, heads, *args, **kwargs)

    watching.model_options["transformer_options"]["optimized_attention_override"] = watch
    step(watching, z)
    return calls


def measure(name: str, case, device, dtype, rounds: int) -> dict:
    from comfy.ldm.modules.attention import optimized_attention

    from ..attention_patches.cross_frame import groups, patch
    from ..attention_patches.pcfa import attended, draws
    from ..nodes.pilife import chooser
    from ..tests import tiny_models as tiny

    shape, width, mult, context, frames, side = case
    overrides = dict(model_channels=width, channel_mult=mult, context_dim=context)
    step = partial(tiny.sample, positive=prompt(context, 1), negative=prompt(context, 2))
    model = tiny.model(shape, dtype, device=device, **overrides)
    z, patched = tiny.latents(frames, side), patch(model, chooser("PCFA", 0.5, 0), "benchmark")
    plan = groups(attended(tuple(range(frames)), "PCFA", 0.5, draws(0, 0, frames)))

    def make(*size):
        return torch.randn(size, device=device, dtype=dtype)

    with torch.inference_mode():
        calls = self_attentions(step, model, z)
        work = {}
        for (b, n, c), heads in calls:
            work[b, n, c, heads] = work.get((b, n, c, heads), 0) + 1

        def attention(plan) -> float:
            """Seconds of all self-attentions of a step, on tensors laid out beforehand; one of each shape is run and counted."""
            total = 0.0
            for (b, n, c, heads), times in work.items():
                tensors = [(make(rows, n, c), make(rows, keys, c), make(rows, keys, c)) for rows, keys in pieces(b, n, frames, plan)]
                total += times * timed(lambda t=tensors, h=heads: [optimized_attention(q, k, v, h) for q, k, v in t])
            return total

        jobs = {"without": lambda: timed(lambda: step(model, z)), "with": lambda: timed(lambda: step(patched, z)),
                "own attention": lambda: attention(None), "wanted attention": lambda: attention(plan)}
        for job in jobs.values():
            job()
        memory = [peak(jobs[k]) for k in ("without", "with")] if device.type == "cuda" else []
        seconds = {k: [] for k in jobs}
        for _ in range(rounds):
            for k, job in jobs.items():
                seconds[k].append(job())
    t = {k: statistics.median(v) for k, v in seconds.items()}
    floor = t["without"] - t["own attention"] + t["wanted attention"]
    print(f"{name} ({device.type}, {str(dtype).removeprefix('torch.')}, {rounds} rounds)")
    for k, v in (("without PCFA", t["without"]), ("floor", floor), ("with PCFA", t["with"])):
        print(f"  {k:14} {1000 * v:9.1f} ms   {v / t['without']:.3f} x without")
    print(f"  with / floor   {t['with'] / floor:9.3f}      goal 1.15", flush=True)
    if memory:
        print("  peak memory    {:9.2f} GiB without, {:.2f} GiB with".format(*memory))
    return {"what": f"PCFA, {name}", "seconds": t["with"], "ratio": t["with"] / t["without"], "floor": t["with"] / floor, "memory": memory}


def main(argv: list[str]) -> None:
    rounds = int(argv[0]) if argv else 9
    use_host(None) if "default" in argv else use_host()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    for name, case in CASES[kind].items():
        measure(name, case, torch.device(kind), torch.float16 if kind == "cuda" else torch.float32, rounds)
