"""Whatever stands at an input, a graph runs, is refused by the host, or stops with a sentence of ours; afterwards a plain graph gives the same bits.

What is bad is drawn from the schemas: a new node, or a new input, is covered when `bases` has a graph for it.
"""
import copy

import comfy.ops
import firstframe
import pytest
import torch
from comfy.ldm.wan.model import WanModel
from firstframe.demo.server import PACK, Server
from firstframe.tests.hostile import bases, cases
from firstframe.tests.hostile.verdict import finished, judge, queue
from PIL import Image
from safetensors.torch import load_file, save_file

SCHEMAS = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in firstframe.NODES}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of its own, with its cache, so that what stays good is made once; a node for bad values, and a tiny video model."""
    with Server(custom_nodes=[PACK / "tests" / "hostile" / "source_nodes"], environment={"OMP_NUM_THREADS": "1"}) as server:
        wan = WanModel(model_type="t2v", dim=128, ffn_dim=64, num_heads=1, num_layers=1, in_dim=16, out_dim=16, text_dim=4096, freq_dim=256, operations=comfy.ops.manual_cast)
        (server.base / "models" / "diffusion_models").mkdir(exist_ok=True)
        save_file({k: torch.zeros_like(v).half() for k, v in wan.state_dict().items()}, server.base / "models" / "diffusion_models" / "wan.safetensors")
        Image.effect_noise((64, 64), 60).convert("RGB").save(server.base / "input" / "small.png")
        server.salt = 0
        yield server


@pytest.fixture(scope="module")
def graphs(server):
    return bases.bases("small.png")


def run(server, graph) -> dict:
    """The outputs of a graph that must run."""
    prompt = queue(server, graph)
    assert prompt, "the host refuses the graph"
    entry = finished(server, prompt, 120)
    assert entry["status"]["status_str"] == "success", [data for event, data in entry["status"]["messages"] if event == "execution_error"]
    return entry["outputs"]


def plain_bits(server) -> torch.Tensor:
    """Of a graph without our nodes, sampled anew."""
    graph, server.salt = bases.needed(bases.plain()), server.salt + 1
    graph["again"] = {"class_type": "HostileValue", "inputs": {"type": "LATENT", "name": f"as it is {server.salt}", "good": ["latent", 0]}}
    graph["sample"]["inputs"]["latent_image"] = ["again", 0]
    saved = run(server, graph)["save sample"]["latents"][0]
    return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


@pytest.fixture(scope="module")
def before(server):
    return plain_bits(server)


@pytest.mark.parametrize("node", SCHEMAS)
def test_every_bad_value_at_every_input(server, graphs, before, node):
    graph, key = graphs[node]
    assert graph[key]["class_type"] == node
    run(server, graph)
    every = [(f"{node}.{spec.id}, {name}", bad) for spec in SCHEMAS[node].inputs for name, bad in cases.of_input(graph, key, spec)]
    wrong, counts = judge(server, every)
    print(f"{node}: {len(every)} cases, {counts}")
    assert torch.equal(plain_bits(server), before)
    run(server, copy.deepcopy(graph))
    assert not wrong, "\n" + "\n".join(wrong)
