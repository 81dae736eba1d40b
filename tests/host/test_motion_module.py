"""Motion modules on the real server: files of every container, wrong files, and the same bits afterwards."""
import pickle

import pytest
import torch
from firstframe.demo.cli import outputs
from firstframe.tests import graphs
from firstframe.tests import motion_files as files
from firstframe.tests import tiny_models as tiny
from safetensors.torch import save_file

MODULES, LORAS = "animatediff_models", "animatediff_motion_lora"


def bits(host, graph) -> bytes:
    """The frames alone: the file holds its graph too."""
    return b"".join(f.tobytes() for f in outputs.read_webp(host.fetch(host.run(graph)["save"]["images"][0]), 8.0)[0])


@pytest.fixture(scope="module")
def demo():
    return tiny.model("demo")


@pytest.fixture(scope="module")
def server(host, demo):
    """The server with random modules in its folders."""
    folders = {kind: host.base / "models" / kind for kind in (MODULES, LORAS)}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    module = files.module(demo, "v2")
    save_file(module, folders[MODULES] / "v2.safetensors")
    save_file(files.as_diffusers(module), folders[MODULES] / "diffusers.safetensors")
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in module.items()}}, folders[MODULES] / "wrapped.ckpt")
    torch.save({**module, "animatediff_config": {"motion_module_type": "Vanilla"}}, folders[MODULES] / "bare.ckpt")
    save_file(files.module(tiny.model(), "v3"), folders[MODULES] / "narrow.safetensors")
    save_file(files.lora(demo), folders[LORAS] / "pan.safetensors")
    save_file(files.lora(demo), folders[MODULES] / "lora.safetensors")
    torch.save(module, folders[MODULES] / "whole.ckpt")
    whole = (folders[MODULES] / "whole.ckpt").read_bytes()
    (folders[MODULES] / "truncated.ckpt").write_bytes(whole[:len(whole) // 2])
    (folders[MODULES] / "truncated.safetensors").write_bytes((folders[MODULES] / "v2.safetensors").read_bytes()[:100000])
    yield host


def test_every_container_gives_the_same_clip(server):
    plain = bits(server, graphs.plain(4))
    clips = {name: bits(server, graphs.motion(name)) for name in ("v2.safetensors", "diffusers.safetensors", "wrapped.ckpt", "bare.ckpt")}
    assert len(set(clips.values())) == 1 and plain not in clips.values()
    assert bits(server, graphs.motion("v2.safetensors", strength=0.0)) == plain
    assert bits(server, graphs.motion("v2.safetensors", lora="pan.safetensors")) not in (plain, clips["bare.ckpt"])
    assert bits(server, graphs.motion("v2.safetensors")) == clips["bare.ckpt"] and bits(server, graphs.plain(4)) == plain


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name,says", [
    ("lora.safetensors", "found a motion LoRA. Motion LoRAs belong into models/animatediff_motion_lora"),
    ("truncated.ckpt", "cannot read 'truncated.ckpt' in models/animatediff_models"),
    ("truncated.safetensors", "cannot read 'truncated.safetensors' in models/animatediff_models"),
    ("narrow.safetensors", "Node motion (FF_MotionModuleApply): Apply Motion Module: the motion module 'narrow.safetensors' does not fit this FirstFrameDemo model"),
    ("nowhere.safetensors", "Value not in list")])
def test_wrong_files_are_refused_and_the_next_graph_runs(server, name, says):
    before = bits(server, graphs.plain())
    assert says in server.run_expecting_error(graphs.motion(name))
    assert bits(server, graphs.plain()) == before


def linked(choice: str) -> dict:
    """Nodes `text` and `choice`, whose output goes into an input with a list of choices without being compared with it."""
    return {"text": {"class_type": "PrimitiveString", "inputs": {"value": choice}},
            "choice": {"class_type": "ComfySwitchNode", "inputs": {"switch": True, "on_false": ["text", 0], "on_true": ["text", 0]}}}


@pytest.mark.parametrize("node,input,says", [
    ("module", "motion_module", "Load Motion Module knows no choice in 'motion_module' of the name 'nowhere.ckpt'. Choose one of: bare.ckpt, "),
    ("motion_lora", "lora", "Load Motion LoRA knows no choice in 'lora' of the name 'nowhere.ckpt'. Choose one of: ")])
def test_a_linked_choice_that_there_is_not_is_named(server, node, input, says):
    graph = graphs.motion("v2.safetensors", lora="pan.safetensors") | linked("nowhere.ckpt")
    graph[node]["inputs"][input] = ["choice", 0]
    assert says in server.run_expecting_error(graph)
    graph["text"]["inputs"]["value"] = {"motion_module": "v2.safetensors", "lora": "pan.safetensors"}[input]
    assert bits(server, graph) == bits(server, graphs.motion("v2.safetensors", lora="pan.safetensors"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_malicious_pickle_is_run(server, tmp_path, protocol):
    trace = tmp_path / "trace"
    for name, save in (("evil.ckpt", lambda o, f: torch.save({"state_dict": o}, f)), ("raw.ckpt", lambda o, f: f.write_bytes(pickle.dumps(o, protocol)))):
        save(Evil(str(trace)), server.base / "models" / MODULES / name)
        message = server.run_expecting_error(graphs.motion(name))
        assert f"cannot read {name!r}" in message and "Nothing in the file was run" in message and not trace.exists()


@pytest.mark.parametrize("frames,says", [(1, "needs at least 2, got 1"), (33, "knows 32 frames, one call would hold 33")])
def test_clips_that_it_cannot_do(server, frames, says):
    assert says in server.run_expecting_error(graphs.motion("v2.safetensors", frames))
