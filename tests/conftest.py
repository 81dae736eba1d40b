"""The host for the tests: ComfyUI in this process, the pack as `firstframe`, and one real server per session on demand.

Tests write `from firstframe.attention_patches.pcfa import ...`; the repository root never stands on sys.path, where
its `nodes` folder would hide the host's nodes.py.
"""
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def use_host() -> None:
    """Makes ComfyUI importable; its command line is read when comfy.cli_args is imported, so that comes first."""
    host = os.environ.get("COMFYUI_PATH", "")
    if not host or not Path(host, "comfy").is_dir():
        raise pytest.UsageError(f"COMFYUI_PATH should name a ComfyUI folder, it is {host!r}; run ./scripts/test, which gets one and sets it.")
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    sys.path.insert(0, str(Path(host).resolve()))
    argv, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    try:
        import comfy.options
        comfy.options.enable_args_parsing()
        import comfy.cli_args
        assert comfy.cli_args.args.cpu, "comfy.cli_args was imported before the tests could ask for --cpu"
    finally:
        sys.argv = argv
    import torch
    torch.set_num_threads(min(2, torch.get_num_threads()))


def use_pack() -> None:
    """The way the host imports a pack: by its file, under a name of its own."""
    spec = importlib.util.spec_from_file_location("firstframe", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["firstframe"] = module
    spec.loader.exec_module(module)
    importlib.import_module("firstframe.demo.comfy_support")  # registers the demo model's class


def pytest_configure():
    use_host()
    use_pack()


@pytest.fixture(scope="session")
def host():
    """A real ComfyUI server with the pack, on CUDA where that is; starts with the first test that asks for it."""
    from firstframe.demo.cli.server import GraphError, Server

    class Host(Server):
        def run_expecting_error(self, graph) -> str:
            """The host's message about a graph that must fail."""
            with pytest.raises(GraphError) as caught:
                self.run(graph)
            return str(caught.value)

    with Host(arguments=["--cache-none", "--disable-dynamic-vram"]) as server:  # no cache, so that a graph run twice is computed twice
        yield server


@pytest.fixture(scope="session")
def dynamic_host():
    """The same in the host's dynamic mode: its own on CUDA, elsewhere as far as a CPU goes."""
    import torch
    from firstframe.demo.cli.server import Server
    on_cpu = {} if torch.cuda.is_available() else dict(custom_nodes=[ROOT / "tests" / "dynamic_mode"], environment={"FIRSTFRAME_DYNAMIC_MODE": "1"})
    with Server(arguments=["--cache-none"], **on_cpu) as server:
        yield server
