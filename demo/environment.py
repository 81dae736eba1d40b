"""What ./scripts/demo and ./scripts/test do first, and then the job itself:  run.py environment demo|test [--comfyui VERSION] [ARGS]

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
    """Becomes the job's process; returns only when the test job's lint complains."""
    version, arguments = take_version(arguments)
    environment = {**clean_environment(), "COMFYUI_PATH": str(prepare(version))}
    if job == "test":
        os.chdir(ROOT)
        lint = subprocess.run([python(), "-m", "ruff", "check", "."], env=environment, check=False).returncode
        if lint:
            return lint
        command = ["-m", "pytest", *arguments]
    else:
        command = [str(DEMO / "run.py"), "command", *arguments]
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
