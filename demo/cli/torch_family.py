"""Makes torchvision and torchaudio import beside a CPU build of torch; run once by .venv's Python, after installing.

They exist only as builds linked to CUDA. Beside a CPU torch their compiled halves cannot load, and without those two
things go wrong: torchvision describes operators that nobody declared, and torchaudio insists on loading its extension. The
host uses neither half. Where the packages work as they are, nothing is changed.
"""
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
HOOK = "firstframe_torchvision"
# Looks on at every import until torchvision's comes, and then declares the operators: torch is not imported before it is needed.
HOOK_CODE = '''"""Written by demo/cli/torch_family.py: declares torchvision's operators, which its compiled half cannot do beside this torch."""
import importlib.abc
import sys

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
kept = []  # a torch.library.Library takes its declarations back when it is collected


class BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch
            if not hasattr(torch.ops.torchvision, "nms"):
                kept.append(torch.library.Library("torchvision", "DEF"))
                for operator in ("nms", "qnms"):
                    kept[0].define(operator + SCHEMA)
        return None  # the usual finders go on from here


sys.meta_path.insert(0, BeforeTorchvision())
'''


def works(statement: str) -> bool:
    """In a process of its own, because a failed import leaves traces."""
    return subprocess.run([sys.executable, "-c", statement], capture_output=True, check=False).returncode == 0


def write_hook() -> None:
    (SITE / f"{HOOK}.py").write_text(HOOK_CODE)
    (SITE / f"{HOOK}.pth").write_text(f"import {HOOK}\n")


def remove_extension() -> None:
    folder = Path(importlib.util.find_spec("torchaudio").origin).parent / "lib"
    for file in folder.glob("*.so"):
        file.unlink()


def main() -> None:
    for file in SITE.glob(f"{HOOK}.*"):  # from another torch, with which it was needed
        file.unlink()
    for package, repair in (("torchvision", write_hook), ("torchaudio", remove_extension)):
        if not works(f"import {package}"):
            repair()
            if not works(f"import {package}"):
                raise SystemExit(f"{package} cannot be imported")


if __name__ == "__main__":
    main()
