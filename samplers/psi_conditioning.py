"""The embeddings that an inversion found, as CONDITIONING: each on its own range of noise levels.

The ranges are noise levels (the host's `timestep_start` and `timestep_end`), not shares of a schedule: a model that samples with another
schedule than the one that inverted, as motion modules bring it, meets every psi_t at the noise it was found for.
"""


def ranges(edges, T: int) -> list[tuple[float | None, float | None]]:
    """[(highest, lowest noise level)] of timesteps 1..T; edges[i-1] lies between the i-th and the next; the outermost ends are open (None)."""
    return [(None if i == T else float(edges[i - 1]), None if i == 1 else float(edges[i - 2])) for i in range(1, T + 1)]


def own_range(options: dict, percent_to_sigma) -> tuple[float, float]:
    """(highest, lowest noise level) at which an entry of a CONDITIONING is active, whatever limits it."""
    start = max(options.get(key, 0.0) for key in ("start_percent", "clip_start_percent"))
    end = min(options.get(key, 1.0) for key in ("end_percent", "clip_end_percent"))
    high, low = percent_to_sigma(start), percent_to_sigma(end)
    return min(high, options.get("timestep_start", high)), max(low, options.get("timestep_end", low))


def as_conditioning(inversion, original, percent_to_sigma) -> list:
    """CONDITIONING with every psi_t on its own noise levels, within the entry's own; the rest of each entry (ControlNet, area, pooled) as it was.

    original: the CONDITIONING that the optimisation set out with; percent_to_sigma: of the model that inverted.
    """
    out, T = [], len(inversion.timesteps)
    for i, (high, low) in reversed(list(enumerate(ranges(inversion.edges, T), 1))):
        for psi, (_, options) in zip(inversion.psi[i], original):
            start, end = own_range(options, percent_to_sigma)
            start, end = start if high is None else min(high, start), end if low is None else max(low, end)
            if start > end:
                rest = {k: v for k, v in options.items() if not k.endswith(("start_percent", "end_percent"))}
                out.append([psi, {**rest, "timestep_start": start, "timestep_end": end}])
    return out
