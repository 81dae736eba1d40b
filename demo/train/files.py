"""The published files: half precision, the steps that the weights have had in their metadata."""
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file


def save_half(sd: dict, path: Path, steps: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().contiguous() for k, v in sd.items()}, path, metadata=None if steps is None else {"steps": str(steps)})


def steps_of(path: Path) -> int:
    with safe_open(path, "pt") as f:
        return int(f.metadata()["steps"])
