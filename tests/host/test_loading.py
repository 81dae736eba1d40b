"""The pack in a real host: loads whatever its folder is called and wherever the host was started, and explains itself."""
import re

import pytest
from firstframe.demo.cli.server import PACK, Server

NAMES = ("ComfyUI-FirstFrame", "firstframe.v0.1-main", "my pack")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """(log, object_info) of one server with the pack under every name."""
    with Server(names=NAMES, cwd=tmp_path_factory.mktemp("elsewhere")) as server:
        yield server.log.read_text(errors="replace"), server.object_info()


def ours(object_info: dict) -> dict:
    return {i: spec for i, spec in object_info.items() if spec["python_module"].removeprefix("custom_nodes.") in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_may_have_any_name(loaded, name):
    log, _ = loaded
    lines = [line for line in log.splitlines() if re.search(r"seconds.*: .*[/\\]" + re.escape(name) + r"(\x1b\[0m)?\s*$", line)]
    assert len(lines) == 1, log[-3000:]
    assert "IMPORT FAILED" not in lines[0], log[-3000:]
    assert "Error while calling comfy_entrypoint" not in log and "Cannot import" not in log


def test_every_node_of_the_pack_is_there(loaded):
    import firstframe
    assert set(ours(loaded[1])) == {node.GET_SCHEMA().node_id for node in firstframe.NODES}


def test_every_node_input_and_output_is_explained(loaded):
    silent = []
    for node_id, spec in ours(loaded[1]).items():
        silent += [node_id] if not spec["description"] else []
        silent += [f"{node_id}.{name}" for group in ("required", "optional") for name, entry in spec["input"].get(group, {}).items()
                   if not (len(entry) > 1 and entry[1].get("tooltip"))]
        tooltips = spec.get("output_tooltips") or [None] * len(spec["output"])
        silent += [f"{node_id} -> {name}" for name, tooltip in zip(spec["output_name"], tooltips) if not tooltip]
    assert silent == []


def test_every_node_has_a_help_page(loaded):
    assert [i for i in ours(loaded[1]) if not (PACK / "web" / "docs" / f"{i}.md").is_file()] == []


def test_the_session_host_runs_and_complains_in_a_sentence(host):
    graph = {"1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 2, "color": 0}},
             "2": {"class_type": "SaveAnimatedWEBP", "inputs": {"images": ["1", 0], "filename_prefix": "t", "fps": 8.0, "lossless": True, "quality": 80, "method": "default"}}}
    assert host.run(graph)["2"]["animated"] == [True]
    graph["2"]["inputs"]["fps"] = -1
    assert host.run_expecting_error(graph).startswith("Node 2 (SaveAnimatedWEBP): ")
