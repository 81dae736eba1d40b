"""What ./scripts/demo and ./scripts/test do first, and then the job itself:  run.py cli.environment demo|test [--comfyui VERSION] [ARGS]

The first time it makes .venv/ and gets a ComfyUI (some minutes); after that it only looks at two small files and never
asks the network. Which ComfyUI: --comfyui VERSION, else the environment variable COMFYUI_PATH, else the ComfyUI whose
custom_nodes folder the pack lies in, else the pinned one. The packages are .venv's in every case.
"""
import os
import subprocess
import sys
from pathlib import Path

from . import hosts
from .venv import DEMO, ROOT, Problem, alone, clean_environment, install, make_venv, python

NEEDS_CUDA = """import sys, torch
if not torch.cuda.is_available():
    sys.exit("scripts/test: --gpu needs a CUDA device, and PyTorch %s in .venv finds none; leave --gpu out to test on the CPU." % torch.__version__)
"""


def prepare(version: "str | None" = None) -> Path:
    """.venv and the host; the host's folder."""
    if version is not None:
        hosts.check_version(version)
    host = hosts.own() if version is None else None
    with alone():
        make_venv()
        host = host or hosts.pinned(version or hosts.DEFAULT)
        install(f"the ComfyUI in {host}", hosts.requirements(host))
    return host


def take_version(arguments: list) -> tuple:
    """(--comfyui's value or None, the other arguments)."""
    rest, version, arguments = [], None, iter(arguments)
    for a in arguments:
        if a == "--comfyui":
            version = next(arguments, "")
        elif a.startswith("--comfyui="):
            version = a.partition("=")[2]
        else:
            rest.append(a)
    return version, rest


def start(job: str, arguments: list) -> int:
    """Becomes the job's process; returns only when the test job's lint complains (with --gpu: or its tests fail, before the benchmarks)."""
    version, arguments = take_version(arguments)
    environment = {**clean_environment(), "COMFYUI_PATH": str(prepare(version))}
    if job == "test":
        os.chdir(ROOT)
        gpu, arguments = "--gpu" in arguments, [a for a in arguments if a != "--gpu"]
        checks = [["-c", NEEDS_CUDA]] * gpu + [["-m", "ruff", "check", "."]] + [["-m", "pytest", *arguments]] * gpu
        for check in checks:
            failed = subprocess.run([python(), *check], env=environment, check=False).returncode
            if failed:
                return failed
        command = [str(DEMO / "run.py"), "benchmarks.gpu"] if gpu else ["-m", "pytest", *arguments]
    else:
        command = [str(DEMO / "run.py"), "cli.command", *arguments]
    sys.stdout.flush()
    os.execve(python(), [str(python()), *command], environment)


def main(argv: list) -> int:
    if argv[:1] not in (["demo"], ["test"]):
        print("environment wants the job first: demo or test.", file=sys.stderr)
        return 2
    try:
        return start(argv[0], argv[1:])
    except (Problem, OSError) as problem:
        print(f"scripts/{argv[0]}: {problem}", file=sys.stderr)
        return 1
