"""The generator on nodes small enough to read, and the shape of the files that it wrote."""
import numpy as np
import pytest
from firstframe.demo.cli import workflow
from firstframe.demo.templates import files, graphs, layout, pictured, schema, thumbnails, ui
from firstframe.demo.templates.graph import Graph, Group, Node
from firstframe.demo.world.judge import judge
from firstframe.tests import workflows
from PIL import Image

TITLE = 30


def spec(name, outputs=(), required=None, optional=None, display=None):
    return {"name": name, "display_name": display, "output": list(outputs), "output_name": [o.lower() for o in outputs],
            "input": {"required": required or {}, "optional": optional or {}}}


INFO = {s["name"]: s for s in (
    spec("Loader", ["MODEL", "CLIP"], {"ckpt_name": [["a", "b"]]}),
    spec("Text", ["CONDITIONING"], {"text": ["STRING", {"multiline": True, "default": "?"}], "clip": ["CLIP", {}]}),
    spec("Sampler", ["LATENT"], {"model": ["MODEL", {}], "positive": ["CONDITIONING", {}], "seed": ["INT", {"default": 3}], "cfg": ["FLOAT", {"default": 7.0}]}, {"mask": ["MASK", {}]}),
    spec("LoadImage", ["IMAGE"], {"image": [["x.png"], {"image_upload": True}]}),
    spec("Saver", [], {"image": ["IMAGE", {}], "codec": ["COMFY_DYNAMICCOMBO_V3", {"options": [
        {"key": "auto", "inputs": {}}, {"key": "h264", "inputs": {"optional": {"crf": ["FLOAT", {"default": 23.0}]}}}]}]}, display="A saver with a title longer than a column is wide"),
)}


def small():
    loader = Node("Loader", {"ckpt_name": "b"})
    text = Node("Text", {"clip": loader["clip"], "text": "a cat"}, title="Prompt")
    sampler = Node("Sampler", {"model": loader["model"], "positive": text["conditioning"], "cfg": 4.0}, bypassed=True)
    return Graph("Small", "## A note", [[Group("Load", [loader])], [Group("Prompt", [text]), Group("Sample", [sampler])]]), (loader, text, sampler)


def test_values_are_saved_by_position_and_links_by_slot():
    made = ui.convert(small()[0], INFO)
    note, loader, text, sampler = made["nodes"]
    assert [n["id"] for n in made["nodes"]] == [1, 2, 3, 4] and note["widgets_values"] == ["## A note"]
    assert (loader["widgets_values"], text["widgets_values"], sampler["widgets_values"]) == (["b"], ["a cat"], [3, "fixed", 4.0])
    assert [(e["name"], e["link"]) for e in sampler["inputs"]] == [("model", 2), ("positive", 3), ("mask", None), ("seed", None), ("cfg", None)]
    assert made["links"] == [[1, 2, 1, 3, 0, "CLIP"], [2, 2, 0, 4, 0, "MODEL"], [3, 3, 0, 4, 1, "CONDITIONING"]]
    assert [o["links"] for o in loader["outputs"]] == [[2], [1]] and (text["mode"], sampler["mode"]) == (0, workflow.BYPASSED)
    assert ui.convert(small()[0], INFO) == made


@pytest.mark.parametrize("values, saved", [({}, ["auto"]), ({"codec": "h264"}, ["h264", 23.0]), ({"codec": "h264", "codec.crf": 18.0}, ["h264", 18.0])])
def test_a_dynamic_choice_brings_its_own_widgets(values, saved):
    assert schema.saved(INFO["Saver"], values) == saved
    assert schema.saved(INFO["LoadImage"], {}) == ["x.png", "image"]


def test_what_does_not_fit_is_named():
    graph, (loader, text, sampler) = small()
    sampler.inputs["strength"] = 1.0
    with pytest.raises(schema.TemplateError, match="Sampler has no widget strength; it has cfg, seed"):
        ui.convert(graph, INFO)
    del sampler.inputs["strength"]
    sampler.inputs["latent"] = text["conditioning"]
    with pytest.raises(schema.TemplateError, match="Sampler has no input 'latent'"):
        ui.convert(graph, INFO)
    sampler.inputs["latent"] = text["latent"]
    with pytest.raises(schema.TemplateError, match="Text has no output 'latent'"):
        ui.convert(graph, INFO)
    sampler.inputs["latent"] = Node("Loader")["model"]
    with pytest.raises(schema.TemplateError, match="latent of Sampler comes from a Loader that stands in no group"):
        ui.convert(graph, INFO)
    graph.columns.append([Group("More", [Node("Nowhere")])])
    with pytest.raises(schema.TemplateError, match="no node Nowhere, which 'Small' needs"):
        ui.convert(graph, INFO)


def test_nodes_stand_in_columns_and_boxes():
    graph, (loader, text, sampler) = small()
    placed = layout.place(graph, INFO)
    a, b, c = (placed.nodes[n] for n in (loader, text, sampler))
    assert a.height == 2 * 20 + 24 + 14 and b.height == 20 + 54 + 14 and c.height == 3 * 20 + 3 * 24 + 14  # as the page has it
    assert placed.note.bottom < a.y - TITLE and a.right < b.x == c.x and b.bottom < c.y - TITLE
    assert len(placed.groups) == 3 and placed.width == c.right + layout.PADDING
    graph.columns.append([Group("Save", [Node("Saver")])])
    assert layout.place(graph, INFO).nodes[graph.nodes[-1]].width > layout.COLUMN


def test_a_graph_that_is_too_wide_is_refused():
    graph, _ = small()
    graph.columns += [[Group("More", [Node("LoadImage")])] for _ in range(5)]
    with pytest.raises(schema.TemplateError, match="'Small' would be 2120 px wide, and 1900 is the most"):
        ui.convert(graph, INFO)


def test_a_clip_under_save_video_has_room_in_its_box():
    info = {**INFO, "SaveVideo": spec("SaveVideo", [], {"image": ["IMAGE", {}]})}
    node = Node("SaveVideo")
    placed = layout.place(Graph("", "", [[Group("Save", [node])]]), info)
    assert placed.groups[0].bottom - placed.nodes[node].bottom == layout.BELOW["SaveVideo"] + layout.PADDING


every_file = pytest.mark.parametrize("path", workflows.ALL, ids=workflows.name)


def box(node: dict) -> layout.Box:
    """With its title bar."""
    return layout.Box(node["pos"][0], node["pos"][1] - TITLE, node["size"][0], node["size"][1] + TITLE)


def overlap(a: layout.Box, b: layout.Box) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def test_every_template_has_its_twin_and_the_best_comes_first():
    assert [p.stem for p in workflows.FOR_USERS] == list(graphs(demo=False)) == list(pictured())
    assert [p.stem for p in workflows.FOR_DEMO] == list(graphs(demo=True)) == [stem for stem, twin in pictured().items() if stem == twin]
    assert workflows.FOR_USERS[0].stem == "01 Picture to video, moves as the prompt says (I2V-Adapter)"
    for demo in workflows.FOR_DEMO:  # the twin has its VAE, a LoRA with its motion module, on the text encoder too, and its CLIP pair for a reward model
        user, = (path for path in workflows.FOR_USERS if path.stem == demo.stem)
        kinds = [sorted(n["type"] for n in workflow.load(p)["nodes"] if n["type"] not in ("VAELoader", "LoraLoader")) for p in (user, demo)]
        if "FF_RewardModelLoader" in kinds[0]:
            kinds[0] = sorted([*(kind for kind in kinds[0] if kind != "FF_RewardModelLoader"), "FF_CLIPScore", "CLIPVisionLoader",
                               "CLIPTextEncode", "CLIPTextEncode", "PrimitiveStringMultiline"])  # single pictures are drawn without that LoRA
        assert kinds[0] == kinds[1]


def test_what_has_no_twin_is_pictured_by_another():
    without = {stem: twin for stem, twin in pictured().items() if stem != twin}
    assert without and all(any(name in stem for name in ("I4VGen", "DynamiCrafter", "VideoCrafter")) and twin in graphs(demo=True) for stem, twin in without.items())


@every_file
def test_it_is_no_wider_than_the_page_can_show(path):
    graph = workflow.load(path)
    boxes = [*map(box, graph["nodes"]), *(layout.Box(*g["bounding"]) for g in graph["groups"])]
    assert max(b.right for b in boxes) - min(b.x for b in boxes) <= 1900
    assert max(b.bottom for b in map(box, graph["nodes"])) - min(b.y for b in boxes) <= 1250


@every_file
def test_no_link_runs_back(path):
    graph = workflow.load(path)
    boxes = {n["id"]: box(n) for n in graph["nodes"]}
    for _, source, _, target, *_ in graph["links"]:
        a, b = boxes[source], boxes[target]
        assert a.right <= b.x or a.x == b.x and a.bottom <= b.y, (source, target)


@every_file
def test_no_node_lies_on_another_and_each_lies_in_one_group(path):
    graph = workflow.load(path)
    boxes, groups = [box(n) for n in graph["nodes"]], [layout.Box(*g["bounding"]) for g in graph["groups"]]
    assert not [(a, b) for some in (boxes, groups) for i, a in enumerate(some) for b in some[:i] if overlap(a, b)]
    note, *nodes = boxes
    assert not [g for g in groups if overlap(g, note)]
    for b in nodes:
        assert [g.x < b.x and b.right < g.right and g.y < b.y and b.bottom < g.bottom for g in groups if overlap(g, b)] == [True]
    titles = [g["title"].split(":")[0] for g in graph["groups"]]
    assert titles[0] == "Load" and titles[-2:] == ["Sample", "Save"] and "Method" in titles


@every_file
def test_every_model_file_can_be_found(path):
    for node in workflow.load(path)["nodes"]:
        if node["type"] in files.LOADERS and (name := node["widgets_values"][0]):
            found = node["properties"].get("models")
            if name in files.WITHOUT_ADDRESS:
                assert found is None and (path in workflows.FOR_DEMO or name in (files.VISION, files.DC_512, files.VC_2, files.SD2_TEXT))
            else:
                assert found == [{"name": name, "url": files.URLS[name], "directory": files.LOADERS[node["type"]][1]}] and found[0]["url"].endswith("/" + name)


OFF = {"LoRA and ControlNet": {"LoraLoader", "ControlNetLoader", "Canny", "ControlNetApplyAdvanced"}, "own checkpoint and LoRA": {"LoraLoader"},
       "SDXL": {"FF_I2VAdapterLoader", "I2VAdapterApply"}}


@every_file
def test_what_is_not_everybodys_is_shipped_bypassed(path):
    off = next((kinds for words, kinds in OFF.items() if words in path.name), set()) if path in workflows.FOR_USERS else set()
    assert {n["type"] for n in workflow.load(path)["nodes"] if n["mode"] == workflow.BYPASSED} == off


def test_the_readmes_clip_moves_as_its_prompt_says_and_stays_the_picture():
    """The first template's twin: a red circle moving right on a blue background."""
    size, seen = 128 * thumbnails.LARGER, []
    with Image.open(thumbnails.CLIP) as clip:
        for i in range(clip.n_frames):
            clip.seek(i)
            halves = [clip.convert("RGB").crop((x, 0, x + size, size)).resize((128, 128)) for x in (0, size + 2 * thumbnails.GAP)]
            seen.append([judge(np.asarray(half, np.float32) / 255) for half in halves])
    (picture, first), (_, last) = seen[0], seen[-1]
    assert len(seen) == 16 and {(v.ground, len(v.shapes), v.shapes[0].name, v.shapes[0].colour) for pair in seen for v in pair} == {("blue", 1, "circle", "red")}
    assert abs(first.shapes[0].centre[0] - picture.shapes[0].centre[0]) < 2 and last.shapes[0].centre[0] - first.shapes[0].centre[0] > 20
    assert thumbnails.CLIP.stat().st_size < 300_000
