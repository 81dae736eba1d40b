"""What the inversion costs and how near it comes: the published optimisation against this pack's, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.inversion [rounds]

Random weights, random latents and embeddings of 77 tokens, one picture a round; 50 steps from timestep 761, guidance 7.5
in null-text mode, the kinds in turn within each round. PSNR is of the latent (the table `inversion` has pictures), seconds
are medians. Memory (CUDA only) is the peak with the choice that the node makes by itself between checkpointing and none.
"""
import statistics
from functools import partial

import torch

from ..demo.in_process import use_host
from .pcfa import peak, prompt, timed

CASES = {  # name: (shape, width, widths per level, width of the prompt, latent side)
    "cpu": {"SD1.5 layout at 2/5 width, 256x256": ("SD1.5", 128, [1, 2, 4, 4], 768, 32)},
    "cuda": {"SD1.5, 512x512, fp16": ("SD1.5", 320, [1, 2, 4, 4], 768, 64)},
}
KINDS = {  # name: (mode, as published)
    "null-text, published": ("null-text", True),
    "null-text, default": ("null-text", False),
    "conditional, published": ("conditional", True),
    "conditional, default": ("conditional", False),
}


def measure(name: str, case, device, dtype, rounds: int, steps: int = 50) -> list[dict]:
    from ..samplers.inversion import REFINE, invert_picture
    from ..samplers.null_text import PUBLISHED, Optimisation
    from ..tests import tiny_models as tiny
    shape, width, mult, context, side = case
    model = tiny.model(shape, dtype, device=device, model_channels=width, channel_mult=mult, context_dim=context)

    def invert(kind: str, seed: int):
        mode, published = KINDS[kind]
        with torch.inference_mode():
            return invert_picture(model, tiny.latents(1, side, seed), prompt(context, 2 * seed), prompt(context, 2 * seed + 1), mode=mode, steps=steps,
                                  start=761, guidance=7.5, refine=0 if published else REFINE[mode],
                                  options=PUBLISHED if published else Optimisation())[1]

    found, seconds = {k: [] for k in KINDS}, {k: [] for k in KINDS}
    for seed in range(rounds):
        for kind in KINDS:
            seconds[kind].append(timed(lambda k=kind, s=seed: found[k].append(invert(k, s))))
    memory = {k: [peak(partial(invert, k, 0))] if device.type == "cuda" else [] for k in KINDS}
    rows = []
    print(f"{name} ({device.type}, {str(dtype).removeprefix('torch.')}, {rounds} pictures)")
    for kind, inversions in found.items():
        psnr, left, calls, backward = (statistics.mean(getattr(i, what) for i in inversions) for what in ("psnr", "guidance", "calls", "backward"))
        t, published = (statistics.median(seconds[k]) for k in (kind, kind.split(",")[0] + ", published"))
        held = "".join(f", {gib:.2f} GiB" for gib in memory[kind])
        print(f"  {kind:23} {psnr:5.1f} dB, guidance left {left:.2f}, {calls:3.0f} calls, {backward:3.0f} with gradients, {t:6.1f} s, {t / published:.3f} x published{held}", flush=True)
        rows.append({"what": f"{kind}, {name}", "seconds": t, "ratio": t / published, "floor": None, "memory": memory[kind]})
    return rows


def main(argv: list[str]) -> None:
    use_host()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    for name, case in CASES[kind].items():
        measure(name, case, torch.device(kind), torch.float16 if kind == "cuda" else torch.float32, int(argv[0]) if argv else 3)
