"""What the inversion costs and how near it comes to the picture: the published optimisation against this pack's, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.inversion [rounds]

Random weights, random latents and embeddings of 77 tokens, one picture a round; 50 steps from timestep 761, guidance 7.5
in null-text mode, the kinds in turn within each round. PSNR is of the latent (the table `inversion` has pictures), seconds
are medians. Memory (CUDA only) is the peak with the choice that the node makes by itself between checkpointing and none.
"""
import statistics
from functools import partial

import torch

from ..demo.in_process import use_host
from .timing import Size, heading, medians, on_this_machine, peaks, sd15, timed, two_fifths

CASES = {"cpu": {"SD1.5 layout at 2/5 width, 256x256": two_fifths(1, 32)}, "cuda": {"SD1.5, 512x512, fp16": sd15(1, 64)}}
KINDS = {  # name: (mode, as published)
    "null-text, published": ("null-text", True),
    "null-text, default": ("null-text", False),
    "conditional, published": ("conditional", True),
    "conditional, default": ("conditional", False),
}


def measure(name: str, size: Size, device, dtype, rounds: int, steps: int = 50) -> list[dict]:
    from ..samplers.inversion import REFINE, invert_picture
    from ..samplers.null_text import PUBLISHED, Optimisation
    from ..tests import tiny_models as tiny
    model = size.model(device, dtype)

    def invert(kind: str, seed: int):
        mode, published = KINDS[kind]
        with torch.inference_mode():
            return invert_picture(model, tiny.latents(1, size.side, seed), size.prompt(2 * seed), size.prompt(2 * seed + 1), mode=mode, steps=steps,
                                  start=761, guidance=7.5, refine=0 if published else REFINE[mode],
                                  options=PUBLISHED if published else Optimisation())[1]

    found = {k: [] for k in KINDS}
    seconds = medians({k: lambda seed, k=k: timed(lambda: found[k].append(invert(k, seed))) for k in KINDS}, rounds)
    memory = {k: peaks(device, partial(invert, k, 0)) for k in KINDS}
    rows = []
    print(heading(name, device, dtype, f"{rounds} pictures"))
    for kind, inversions in found.items():
        psnr, left, calls, backward = (statistics.mean(getattr(i, what) for i in inversions) for what in ("psnr", "guidance", "calls", "backward"))
        t, published = seconds[kind], seconds[kind.split(",")[0] + ", published"]
        held = "".join(f", {gib:.2f} GiB" for gib in memory[kind])
        print(f"  {kind:23} {psnr:5.1f} dB, guidance left {left:.2f}, {calls:3.0f} calls, {backward:3.0f} with gradients, {t:6.1f} s, {t / published:.3f} x published{held}", flush=True)
        rows.append({"what": f"{kind}, {name}", "seconds": t, "ratio": t / published, "floor": None, "memory": memory[kind]})
    return rows


def main(argv: list[str]) -> None:
    use_host()
    for case in on_this_machine(CASES):
        measure(*case, int(argv[0]) if argv else 3)
