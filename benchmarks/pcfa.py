"""What PCFAPatch costs: one UNet step without it, with it, and the floor, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.pcfa [rounds]

Floor: the plain step, minus its own self-attention, plus the attention that Eq. 15 asks for (each frame's queries over
the keys and values of its set, laid out beforehand). Gathering, grouping and bookkeeping are what lies above it.
Random weights; the step goes through the host's guider with cond and uncond in one batch. Medians of interleaved rounds.
"""
import statistics
import time

import torch

from ..demo.train.common import use_host

CASES = {  # name: (shape, width, widths per level, frames, latent side)
    "cpu": {"demo world, 8 frames, 128x128": ("demo", 64, [1, 1, 1, 1], 8, 16),
            "SD1.5 layout at 2/5 width, 8 frames, 256x256": ("SD1.5", 128, [1, 2, 4, 4], 8, 32)},
    "cuda": {"SD1.5, 16 frames, 512x512, fp16": ("SD1.5", 320, [1, 2, 4, 4], 16, 64)},
}


def timed(function) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def self_attentions(tiny, model, z) -> list:
    """(shape of q, heads) of every self-attention of one plain step."""
    calls, watching = [], model.clone()

    def watch(func, q, k, v, heads, *args, **kwargs):
        if q.shape == k.shape:
            calls.append((q.shape, heads))
        return func(q, k, v, heads, *args, **kwargs)

    watching.model_options["transformer_options"]["optimized_attention_override"] = watch
    tiny.sample(watching, z)
    return calls


def measure(name: str, case, device, dtype, rounds: int) -> None:
    from comfy.ldm.modules.attention import optimized_attention

    from ..attention_patches.cross_frame import groups, patch
    from ..attention_patches.pcfa import attended, draws
    from ..nodes.pilife import chooser
    from ..tests import tiny_models as tiny

    shape, width, mult, frames, side = case
    overrides = dict(model_channels=width, channel_mult=mult)
    model = tiny.model(shape, dtype, device=device, **overrides)
    z, patched = tiny.latents(frames, side), patch(model, chooser("PCFA", 0.5, 0), "benchmark")
    plan = groups(attended(tuple(range(frames)), "PCFA", 0.5, draws(0, 0, frames)))

    def make(*size):
        return torch.randn(size, device=device, dtype=dtype)

    with torch.inference_mode():
        calls = self_attentions(tiny, model, z)
        work = {}
        for (b, n, c), heads in calls:
            work[b, n, c, heads] = work.get((b, n, c, heads), 0) + 1

        def attention(kind) -> float:
            """Seconds of all self-attentions of a step, on tensors laid out beforehand; one of each shape is run and counted."""
            total = 0.0
            for (b, n, c, heads), times in work.items():
                clips = b // frames
                sizes = [(b, n)] if kind == "plain" else [(clips * len(positions), len(sources[0]) * n) for positions, sources in plan]
                tensors = [(make(rows, n, c), make(rows, keys, c), make(rows, keys, c)) for rows, keys in sizes]
                total += times * timed(lambda t=tensors, h=heads: [optimized_attention(q, k, v, h) for q, k, v in t])
            return total

        jobs = {"without": lambda: timed(lambda: tiny.sample(model, z)), "with": lambda: timed(lambda: tiny.sample(patched, z)),
                "own attention": lambda: attention("plain"), "wanted attention": lambda: attention("PCFA")}
        for job in jobs.values():
            job()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
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
    if device.type == "cuda":
        print(f"  peak memory    {torch.cuda.max_memory_allocated() / 2**30:9.2f} GiB")


def main(argv: list[str]) -> None:
    rounds = int(argv[0]) if argv else 9
    use_host()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    for name, case in CASES[kind].items():
        measure(name, case, torch.device(kind), torch.float16 if kind == "cuda" else torch.float32, rounds)
