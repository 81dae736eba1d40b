"""DynamiCrafter on the real server: every container, the host's own sampler and LoRA, the same bits in dynamic mode, and what is refused."""
import pytest
import torch
from firstframe.demo.cli import outputs
from firstframe.tests import graphs
from firstframe.tests import lvdm_files as files
from PIL import Image
from safetensors.torch import save_file

PICTURE, OTHER = "dynamicrafter.png", "dynamicrafter_2.png"


def bits(host, graph) -> bytes:
    return b"".join(f.tobytes() for f in outputs.read_webp(host.fetch(host.run(graph)["save"]["images"][0]), 8.0)[0])


def filled(host):
    """The server with random DynamiCrafters in its folders, and two pictures."""
    sd, models = files.for_demo(), host.base / "models"
    for folder in ("dynamicrafter_models", "diffusion_models"):
        (models / folder).mkdir(exist_ok=True)
    save_file(sd, models / "dynamicrafter_models" / "plain.safetensors")
    torch.save({"state_dict": sd, "global_step": 1}, models / "checkpoints" / "official.ckpt")
    torch.save({"module": {f"_forward_module.{key}": value for key, value in sd.items()}}, models / "diffusion_models" / "deepspeed.ckpt")
    save_file(files.for_demo(version="256"), models / "checkpoints" / "v256.safetensors")
    save_file(files.file(1024, 1280), models / "checkpoints" / "wide.safetensors")
    for name, sigma in ((PICTURE, 60), (OTHER, 30)):
        Image.frombytes("RGB", (128, 96), torch.randint(sigma, 256 - sigma, (96, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(sigma)).numpy().tobytes()).save(
            host.base / "input" / name)
    return host


@pytest.fixture(scope="module")
def server(host):
    return filled(host)


def graph(file: str = "plain.safetensors", **inputs) -> dict:
    return graphs.dynamicrafter(PICTURE, file, **inputs)


def test_every_container_and_folder_gives_the_same_clip(server):
    clip = bits(server, graph())
    assert bits(server, graph("official.ckpt")) == clip == bits(server, graph("deepspeed.ckpt")) and bits(server, graph("v256.safetensors")) != clip


def test_two_pictures_a_loop_and_the_picture_s_weight(server):
    two = graph(end_image=["other", 0]) | {"other": {"class_type": "LoadImage", "inputs": {"image": OTHER}}}
    clips = [bits(server, g) for g in (graph(), two, graph(loop=True), graph(fps=7))]
    for weight in (1.0, 0.0):
        weighed = graph()
        weighed["weight"] = {"class_type": "FF_DualCrossAttentionPatch", "inputs": {"model": ["dynami", 0], "weight": weight, "start_percent": 0.0, "end_percent": 1.0}}
        weighed["sample"]["inputs"]["model"] = ["weight", 0]
        clips.append(bits(server, weighed))
    assert clips[4] == clips[0] and len(set(clips)) == 5


def test_the_embedding_in_place_of_the_conditioning_s(server):
    again = graph()
    again["embed"] = {"class_type": "FF_TextAlignedImageEmbedding", "inputs": {
        "positive": ["condition", 0], "negative": ["condition", 1], "image_projector": ["dynami", 4], "clip_vision": ["vision", 0], "image": ["other", 0]}}
    again["other"] = {"class_type": "LoadImage", "inputs": {"image": OTHER}}
    again["sample"]["inputs"] |= {"positive": ["embed", 0], "negative": ["embed", 1]}
    assert bits(server, again) != bits(server, graph())


def test_more_frames_in_windows(server):
    long = graphs.in_windows(graph(frames=6), length=4, overlap=2)
    assert bits(server, long) != bits(server, graph(frames=6))


def test_the_same_bits_in_dynamic_mode(server, dynamic_host):
    filled(dynamic_host)
    for g in (graph(), graph("v256.safetensors"), graph("official.ckpt", loop=True)):
        assert bits(dynamic_host, g) == bits(server, g)


@pytest.mark.parametrize("graph, says", [
    (graph(graphs.CHECKPOINT), "Load DynamiCrafter expected a DynamiCrafter model"),
    (graph("wide.safetensors"), "'wide.safetensors' needs the text encoder OpenCLIP-H, as in SD2.1, 1024 wide; 'positive' comes from another one, 64 wide"),
    (graph(end_image=["picture", 0], loop=True), "Disconnect end_image or switch loop off")])
def test_wrong_graphs_are_refused_and_the_next_one_runs(server, graph, says):
    before = bits(server, graphs.plain())
    assert says in server.run_expecting_error(graph)
    assert bits(server, graphs.plain()) == before


def test_a_file_without_a_text_encoder_says_so(server):
    lacks = graph()
    lacks["positive"]["inputs"]["clip"] = ["dynami", 1]
    assert "clip input is invalid: None" in server.run_expecting_error(lacks)
