"""The converter's rules one by one, on graphs small enough to read; /object_info is made up to the host's shape."""
import json

import pytest
from firstframe.demo.cli.workflow import WorkflowError, load, set_values, to_api


def info(**nodes):
    return {name: {"input": spec, "display_name": name} for name, spec in nodes.items()}


SEED = ["INT", {"default": 0, "control_after_generate": True}]
INFO = info(
    Loader={"required": {"name": [["a", "b"]]}},
    LoadImage={"required": {"image": [["x.png"], {"image_upload": True}], "size": ["INT", {"default": 64}]}},
    CLIPTextEncode={"required": {"text": ["STRING", {}], "clip": ["CLIP", {}]}},
    Sampler={"required": {"model": ["MODEL", {}], "seed": SEED, "steps": ["INT", {"default": 20}], "name": ["COMBO", {"options": ["euler", "ddim"]}]},
             "optional": {"image": ["IMAGE", {}], "cfg": ["FLOAT", {"default": 7.0}], "sigma": ["FLOAT", {"default": 1.0, "forceInput": True}]}},
    FF_I2VZero={"required": {"frames": ["INT", {"default": 8}], "noise_seed": ["INT", {"default": 0}]}},
    Saver={"required": {"image": ["IMAGE", {}], "codec": ["COMFY_DYNAMICCOMBO_V3", {"options": [
        {"key": "auto", "inputs": {"required": {}}}, {"key": "h264", "inputs": {"required": {"crf": ["FLOAT", {"default": 23.0}]}}}]}],
        "after": ["INT", {"default": 5}]}},
    Lister={"required": {"points": ["CURVE", {"default": []}]}},
)


def node(id, type, values=(), inputs=(), outputs=(), **more):
    return {"id": id, "type": type, "mode": 0, "widgets_values": list(values), **more,
            "inputs": [{"name": n, "type": t, "link": link} for n, t, link in inputs], "outputs": [{"name": t, "type": t} for t in outputs]}


def graph(nodes, links=()):
    return {"version": 0.4, "nodes": nodes, "links": [list(link) for link in links]}


def inputs(ui, id):
    return to_api(ui, INFO)[str(id)]["inputs"]


def test_values_are_taken_by_position_and_the_seed_control_is_skipped():
    ui = graph([node(1, "Sampler", [7, "randomize", 30, "ddim", 4.5])])
    assert inputs(ui, 1) == {"seed": 7, "steps": 30, "name": "ddim", "cfg": 4.5}


def test_an_old_seed_without_the_option_has_the_control_too():
    assert inputs(graph([node(1, "FF_I2VZero", [8, 9, "fixed"])]), 1) == {"frames": 8, "noise_seed": 9}
    assert inputs(graph([node(1, "FF_I2VZero", [8, 9])]), 1) == {"frames": 8, "noise_seed": 9}


def test_missing_values_become_defaults():
    assert inputs(graph([node(1, "Sampler", [7])]), 1) == {"seed": 7, "steps": 20, "name": "euler", "cfg": 7.0}
    assert inputs(graph([node(1, "Loader")]), 1) == {"name": "a"}


def test_the_upload_button_is_skipped():
    assert inputs(graph([node(1, "LoadImage", ["y.png", "image", 32])]), 1) == {"image": "y.png", "size": 32}


@pytest.mark.parametrize("values, expected", [
    (["auto", 3], {"codec": "auto", "after": 3}),
    (["h264", 18.0, 3], {"codec": "h264", "codec.crf": 18.0, "after": 3}),
    (["h264"], {"codec": "h264", "codec.crf": 23.0, "after": 5}),
    ([], {"codec": "auto", "after": 5}),
])
def test_a_dynamic_combo_brings_its_own_widgets(values, expected):
    assert inputs(graph([node(1, "Saver", values)]), 1) == expected


def test_lists_are_wrapped_so_that_they_are_no_links():
    assert inputs(graph([node(1, "Lister", [[1, 0]])]), 1) == {"points": {"__value__": [1, 0]}}


def test_links_win_over_values():
    ui = graph([node(1, "Loader", ["a"], outputs=["INT", "MODEL"]), node(2, "Sampler", [7, "fixed", 30], [("model", "MODEL", 5), ("steps", "INT", 6)])],
               [(5, 1, 1, 2, 0, "MODEL"), (6, 1, 0, 2, 2, "INT")])
    assert inputs(ui, 2) | {} == {"model": ["1", 1], "seed": 7, "steps": ["1", 0], "name": "euler", "cfg": 7.0}


def chain(middle):
    """Loader -> middle -> Sampler.model"""
    return graph([node(1, "Loader", outputs=["MODEL"]), middle, node(3, "Sampler", [], [("model", "MODEL", 2)])],
                 [(1, 1, 0, 2, 0, "MODEL"), (2, 2, 0, 3, 0, "MODEL")])


def test_reroutes_and_bypassed_nodes_are_looked_through():
    assert inputs(chain(node(2, "Reroute", inputs=[("", "*", 1)], outputs=["MODEL"])), 3)["model"] == ["1", 0]
    bypassed = node(2, "Sampler", inputs=[("image", "IMAGE", None), ("model", "MODEL", 1)], outputs=["MODEL"], mode=4)
    api = to_api(chain(bypassed), INFO)
    assert api["3"]["inputs"]["model"] == ["1", 0] and "2" not in api


def test_what_is_muted_and_its_links_are_left_out():
    api = to_api(chain(node(2, "Sampler", inputs=[("model", "MODEL", 1)], outputs=["MODEL"], mode=2)), INFO)
    assert "2" not in api and "model" not in api["3"]["inputs"]


def test_a_primitive_gives_its_value_and_notes_are_dropped():
    ui = graph([node(1, "PrimitiveNode", [11, "randomize"], outputs=["INT"]), node(2, "Sampler", [7], [("seed", "INT", 1)]),
                node(3, "Note", ["hello"]), node(4, "MarkdownNote", ["# hello"])], [(1, 1, 0, 2, 0, "INT")])
    api = to_api(ui, INFO)
    assert list(api) == ["2"] and api["2"]["inputs"]["seed"] == 11
    assert inputs(set_values(ui, INFO, seed=3), 2)["seed"] == 3


def test_an_unknown_node_is_named():
    with pytest.raises(WorkflowError, match=r"no node of type 'Other', which my title \(node 4\) is"):
        to_api(graph([node(4, "Other", title="my title")]), INFO)


def test_set_values():
    ui = graph([node(1, "LoadImage", ["y.png", "image", 32]), node(2, "CLIPTextEncode", ["old"], title="Prompt"), node(3, "CLIPTextEncode", ["bad"], title="Negative"),
                node(4, "Sampler", [7, "randomize", 30]), node(5, "FF_I2VZero", [8, 9, "randomize"])])
    before = json.dumps(ui)
    new = set_values(ui, INFO, image="z.png", prompt="a cat", seed=5, frames=12)
    assert [n["widgets_values"] for n in new["nodes"]] == [["z.png", "image", 32], ["a cat"], ["bad"], [5, "fixed", 30], [12, 5, "fixed"]]
    assert json.dumps(ui) == before
    assert set_values(ui, INFO) == ui


@pytest.mark.parametrize("option, what", [("image", "LoadImage"), ("prompt", 'titled "Prompt"'), ("seed", "seed"), ("frames", "Picture to Frames")])
def test_a_value_that_has_no_place_is_an_error(option, what):
    with pytest.raises(WorkflowError, match=what):
        set_values(graph([node(1, "Loader", ["a"])]), INFO, **{option: 5})


@pytest.mark.parametrize("text, message", [
    ("{", "not a workflow"), ("[]", "other JSON"), ('{"1": {"class_type": "KSampler", "inputs": {}}}', "API format"),
    ('{"nodes": [], "links": [], "definitions": {"subgraphs": [{}]}}', "subgraphs"),
])
def test_files_that_cannot_be_run(tmp_path, text, message):
    file = tmp_path / "w.json"
    file.write_text(text)
    with pytest.raises(WorkflowError, match=message):
        load(file)
    with pytest.raises(WorkflowError, match="no workflow file"):
        load(tmp_path / "none.json")
