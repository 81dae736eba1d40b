"""Every workflow file on the real server: its values fit the nodes, it explains itself, it runs, it repeats itself bit for bit."""
from urllib.parse import quote

import pytest
from firstframe.demo.cli import outputs, workflow
from firstframe.demo.templates import write
from firstframe.tests import graphs, lvdm_files, sparse_files, tiny_models, workflows
from PIL import Image
from safetensors.torch import save_file

NUMBERS = {"INT": int, "FLOAT": (int, float)}
PLAIN = {"STRING": str, "BOOLEAN": bool, **NUMBERS}
FILES = {"CheckpointLoaderSimple": "checkpoints", "VAELoader": "vae", "LoraLoader": "loras", "ControlNetLoader": "controlnet",
         "FF_MotionModuleLoader": "animatediff_models", "FF_MotionLoraLoader": "animatediff_motion_lora", "FF_I2VAdapterLoader": "i2v_adapter",
         "FF_ContentAdapterLoader": "ipadapter", "CLIPVisionLoader": "clip_vision", "FF_RewardModelLoader": "reward_models", "FF_SparseCtrlLoader": "controlnet",
         "FF_DynamiCrafterLoader": "checkpoints",
         "UNETLoader": "diffusion_models", "CLIPLoader": "text_encoders"}  # their choices are the user's files
every_workflow = pytest.mark.parametrize("path", workflows.ALL, ids=workflows.name)
every_one_on_demo_models = pytest.mark.parametrize("path", workflows.ON_DEMO_MODELS, ids=workflows.name)


@pytest.fixture(scope="module", autouse=True)
def random_models(host, dynamic_host):
    """With random weights: the demo has none."""
    for server in (host, dynamic_host):
        save_file(sparse_files.model("rgb", tiny_models.SHAPES["demo"][1]), server.base / "models" / "controlnet" / graphs.SPARSE)
        save_file(lvdm_files.for_demo(), server.base / "models" / "checkpoints" / graphs.DYNAMI)
        save_file(lvdm_files.for_demo(version="VideoCrafter2 512"), server.base / "models" / "checkpoints" / graphs.VIDEO)


@pytest.fixture(scope="module")
def info(host):
    return host.object_info()


@pytest.fixture(scope="module")
def image(host):
    return host.upload_image(workflows.PICTURE)


def complaint(kind: str, options: dict, value) -> str | None:
    """What is wrong with a widget's saved value."""
    choices = [c["key"] if kind == workflow.DYNAMIC else c for c in options.get("options") or []]
    if kind in ("COMBO", workflow.DYNAMIC):
        return None if value in choices else f"{value!r} is none of {choices}"
    if not isinstance(value, PLAIN[kind]) or kind in NUMBERS and isinstance(value, bool):
        return f"{value!r} is no {kind}"
    if kind in NUMBERS and not options.get("min", value) <= value <= options.get("max", value):
        return f"{value} is outside {options['min']} to {options['max']}"
    return None


def test_every_file_is_what_its_template_says(info):
    stale = [workflows.name(path) for path in write.stale(write.made(info))]
    assert stale == [], "run `COMFYUI_PATH=... python demo/run.py templates.write`, and templates.thumbnails where pictures change"


@every_workflow
def test_every_value_fits_its_widget(path, info):
    wrong = []
    for node in filter(workflow.runs, workflow.load(path)["nodes"]):
        specs = {n: (kind, options) for n, kind, options in workflow.inputs_of(info[node["type"]]["input"])}
        widgets = workflow.widgets(node, info[node["type"]]["input"])
        wrong += [f"{workflow.name_of(node)}: {n} is not saved" for n, place, _ in widgets if place is None]
        wrong += [f"{workflow.name_of(node)}: has no input {e['name']}" for e in node["inputs"] if e["type"] != "IMAGEUPLOAD" and e["name"].split(".")[0] not in specs]
        if node["type"] not in (*FILES, "LoadImage", "LoadVideo"):
            found = [(n, complaint(*specs[n], value)) for n, _, value in widgets if n in specs]
            wrong += [f"{workflow.name_of(node)}: {n}: {text}" for n, text in found if text]
        if info[node["type"]]["python_module"].endswith("ComfyUI-FirstFrame"):
            controls = sum(v in workflow.AFTER_GENERATE for v in node["widgets_values"])
            wrong += [f"{workflow.name_of(node)}: {len(node['widgets_values'])} values"] if len(node["widgets_values"]) != len(widgets) + controls else []
    assert wrong == []


@every_workflow
def test_it_says_what_it_does_and_which_files_go_where(path):
    ui = workflow.load(path)
    notes = [n["widgets_values"][0] for n in ui["nodes"] if n["type"] in workflow.NOTES]
    assert len(notes) == 1 and "What to change first" in notes[0]
    for node in ui["nodes"]:
        if node["type"] in FILES and (workflow.runs(node) or node["widgets_values"][0]):  # a bypassed one may leave the choice to the user
            assert f"`{node['widgets_values'][0]}` in `models/{FILES[node['type']]}`" in notes[0]
    typed = [n for n in ui["nodes"] if n["type"] in workflow.TEXTS and not any(e["name"] == workflow.TEXTS[n["type"]] and e["link"] for e in n["inputs"])]
    assert sorted(n["title"] for n in typed) == ["Negative prompt", "Prompt"]
    assert {v for n in ui["nodes"] for v in n.get("widgets_values") or [] if v in workflow.AFTER_GENERATE} == {"fixed"}


def test_the_template_browser_gets_the_workflows_and_their_thumbnails(host):
    ours = host.get("/workflow_templates")["ComfyUI-FirstFrame"]
    assert sorted(ours) == sorted(p.stem for p in workflows.FOR_USERS)
    for path in workflows.FOR_USERS:
        file = path.with_suffix(".jpg")
        assert host.request(f"/api/workflow_templates/ComfyUI-FirstFrame/{quote(file.name)}") == file.read_bytes()
        with Image.open(file) as picture:
            assert picture.size == (400, 400)
        assert file.stat().st_size < 60_000


def run(host, graph):
    """(WEBP bytes, its frames, the MP4's frames) of a run that computed every node."""
    out = host.run(graph)
    last = next(iter(host.get("/history?max_items=1").values()))
    assert [data["nodes"] for event, data in last["status"]["messages"] if event == "execution_cached"] == [[]]
    (node, webp), = outputs.saved(out, ".webp")
    (_, mp4), = outputs.saved(out, ".mp4")
    data = host.fetch(webp)
    return data, outputs.read_webp(data, graph[node]["inputs"]["fps"])[0], outputs.read_video(host.fetch(mp4))[0]


@every_one_on_demo_models
def test_it_saves_a_video_and_the_same_seed_gives_the_same_bits(path, host, info, image):
    graph = workflows.small_graph(path, info, image)
    data, frames, video = run(host, graph)
    assert len(frames) == len(video) == workflows.frames_of(graph) >= 3
    assert frames[0].size == video[0].size == (128, 128)
    assert min(workflows.difference(a, b) for a, b in zip(frames[1:], frames)) > 0.001  # something moves in every frame
    if "PCFA" in path.name:
        with Image.open(workflows.PICTURE) as picture:
            assert workflows.difference(frames[0], picture) < 0.05
    _, other, _ = run(host, workflows.small_graph(path, info, image, seed=77))
    assert max(workflows.difference(a, b) for a, b in zip(frames, other)) > 0.001
    assert run(host, graph)[0] == data


LORAS = ("LoraLoader", "FF_MotionLoraLoader")  # on large weights they need the card's own pages


@every_one_on_demo_models
def test_in_the_hosts_dynamic_mode_it_gives_the_same_bits(path, host, dynamic_host, info, image):
    dynamic_host.upload_image(workflows.PICTURE)
    graph = workflows.small_graph(path, info, image)
    data, frames, _ = run(dynamic_host, graph)
    if any(node["class_type"] in LORAS for node in graph.values()):
        assert len(frames) == workflows.frames_of(graph)
    else:
        assert data == run(host, graph)[0]
    assert "prepared for dynamic VRAM loading" in dynamic_host.log.read_text(errors="replace")
