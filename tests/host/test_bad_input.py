"""What a wrong graph gets on the real server: a sentence at the node, a server that goes on, and afterwards the same bits as before."""
import pytest
import torch
from comfy.ldm.wan.model import WanModel
from firstframe.demo.cli.server import PACK
from firstframe.tests import graphs
from firstframe.tests.interrupted import run_interrupted
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def picture(host):
    return host.upload_image(PACK / "demo" / "example.png")


def bits(host, graph) -> bytes:
    return host.fetch(host.run(graph)["save"]["images"][0])


@pytest.fixture(scope="module")
def before(host):
    return bits(host, graphs.plain())


@pytest.fixture
def server(host, before):
    """The server; after the test the plain graph must give the bits it gave before all."""
    yield host
    assert bits(host, graphs.plain()) == before


def put_latent(host, name: str, z: torch.Tensor) -> dict:
    save_file({"latent_tensor": z.contiguous(), "latent_format_version_0": torch.zeros(1)}, host.base / "input" / f"{name}.latent")
    return {"class_type": "LoadLatent", "inputs": {"latent": f"{name}.latent"}}


def test_a_missing_picture(server):
    message = server.run_expecting_error(graphs.pcfa("no such picture.png"))
    assert "picture (LoadImage)" in message and "Invalid image file: no such picture.png" in message


def test_a_corrupt_picture(server):
    (server.base / "input" / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n but no picture")
    assert "Node picture (LoadImage): " in server.run_expecting_error(graphs.pcfa("corrupt.png"))


FRAMES = {"latent": graphs.pcfa, "zero": graphs.i2v_zero, "prior": graphs.similar}  # nodes that make clips


@pytest.mark.parametrize("node", FRAMES)
@pytest.mark.parametrize("frames, said", [(1, "Value 1 smaller than min of 2: frames"), (257, "Value 257 bigger than max of 256: frames")])
def test_too_few_or_too_many_frames(server, picture, node, frames, said):
    graph = FRAMES[node](picture)
    graph[node]["inputs"]["frames"] = frames
    message = server.run_expecting_error(graph)
    assert message.startswith(f"Node {node} (") and message.endswith(said)


@pytest.mark.parametrize("node, who", [*zip(FRAMES, ("Picture to Frames", "I2V-Zero", "Frame Similarity Prior"))])
@pytest.mark.parametrize("frames", [1, 257, 1500000])
def test_frames_through_a_link(server, picture, node, who, frames):
    graph = FRAMES[node](picture)
    graph["count"] = {"class_type": "PrimitiveInt", "inputs": {"value": frames}}
    graph[node]["inputs"]["frames"] = ["count", 0]
    message = server.run_expecting_error(graph)
    assert message.endswith(f"{who} needs a whole number from 2 to 256 in 'frames', got {frames}. Change it there, or in the node that is connected to it.")


def test_one_latent_at_motion_noise(server, picture):
    graph = graphs.pilife(picture)
    graph["init"]["inputs"]["samples"] = ["encode", 0]
    assert "Node init (MotionNoiseInit): Motion Noise makes the noise of a clip and needs at least 2 frames, got 1." in server.run_expecting_error(graph)


def test_one_latent_at_the_patch(server):
    graph = graphs.plain(frames=1)
    graph["patch"] = {"class_type": "PCFAPatch", "inputs": {"model": ["model", 0], "p": 0.5, "seed": 0, "start_percent": 0.0, "end_percent": 1.0}}
    graph["sample"]["inputs"]["model"] = ["patch", 0]
    message = server.run_expecting_error(graph)
    assert message.startswith("Node sample (KSampler): Probabilistic Cross-Frame Attention relates the frames of a clip and needs at least 2, got 1. Give the latent")


def test_a_batch_that_is_not_whole_clips(server, picture):
    graph = graphs.pcfa(picture, frames=5)
    graph["patch"]["inputs"]["frames"] = 3
    assert "got 5 latents, which are not whole clips of 3 frames. Set its 'frames' to 0" in server.run_expecting_error(graph)


def test_several_pictures_where_one_is_needed(server, picture):
    graph = graphs.pcfa(picture)
    graph["two"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["encode", 0], "amount": 2}}
    graph["latent"]["inputs"]["samples"] = ["two", 0]
    assert "Node latent (FF_PictureToFrames): Picture to Frames needs the latent of one picture" in server.run_expecting_error(graph)


@pytest.mark.parametrize("bad, said", [
    (float("nan"), "NaN or infinite values in 1 of 3 entries. Look at the node that made the latent"),
    (float("inf"), "NaN or infinite values in 1 of 3 entries"),
])
def test_nan_latents(server, picture, bad, said):
    z = torch.randn(3, 4, 16, 16)
    z[1, 2, 3, 4] = bad
    graph = graphs.pcfa(picture)
    graph["latent"] = put_latent(server, "bad", z)
    message = server.run_expecting_error(graph)
    assert message.startswith("Node sample (KSampler): Probabilistic") and said in message


def test_latents_of_another_model(server, picture):
    z = torch.randn(1, 16, 16, 16)
    graph = graphs.i2v_zero(picture)
    graph["encode"] = put_latent(server, "sixteen", z)
    message = server.run_expecting_error(graph)
    assert message.startswith("Node zero (FF_I2VZero): I2V-Zero got latents [1, 16, 16, 16], this model works on [frames, 4, height/8, width/8]. Encode the picture")
    graph = graphs.pcfa(picture)
    graph["latent"] = put_latent(server, "sixteens", z.repeat(3, 1, 1, 1))
    assert "got latents [3, 16, 16, 16], this model works on [frames, 4," in server.run_expecting_error(graph)


def test_a_video_model(server, picture):
    """A tiny random Wan, read by the stock loader."""
    import comfy.ops
    wan = WanModel(model_type="t2v", dim=128, ffn_dim=64, num_heads=1, num_layers=1, in_dim=16, out_dim=16, text_dim=4096, freq_dim=256, operations=comfy.ops.manual_cast)
    folder = server.base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    save_file({k: torch.zeros_like(v).half() for k, v in wan.state_dict().items()}, folder / "wan.safetensors")
    for graph, node in ((graphs.pcfa(picture), "patch"), (graphs.i2v_zero(picture), "zero")):
        graph["wan"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "wan.safetensors", "weight_dtype": "default"}}
        graph[node]["inputs"]["model"] = ["wan", 0]
        message = server.run_expecting_error(graph)
        assert f"Node {node} (" in message and "self-attention of an SD1.5- or SDXL-type UNet, got WAN21" in message and "Load such a checkpoint in Load Checkpoint" in message


def test_two_patches_on_the_same_blocks(server, picture):
    graph = graphs.pcfa(picture)
    graph["again"] = {"class_type": "PCFAPatch", "inputs": {**graph["patch"]["inputs"], "model": ["patch", 0]}}
    graph["sample"]["inputs"]["model"] = ["again", 0]
    assert "already have cross-frame attention" in server.run_expecting_error(graph)


def test_noise_levels_in_the_wrong_order(server, picture):
    graph = graphs.i2v_zero(picture)
    graph["zero"]["inputs"] |= {"t0": 900, "t1": 400}
    assert "got t0 = 900 above t1 = 400. Lower t0 or raise t1." in server.run_expecting_error(graph)


def test_an_interrupted_run(server, picture):
    assert run_interrupted(server, graphs.pcfa(picture, frames=8, steps=400), 2).interrupted


def test_our_graphs_repeat_their_bits_too(server, picture):
    for graph in (graphs.pcfa(picture), graphs.i2v_zero(picture)):
        assert bits(server, graph) == bits(server, graph)
