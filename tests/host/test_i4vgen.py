"""I4VGen's second stage on the real server: the sampler and the one node, and what they refuse."""
import pytest
import torch
from firstframe.demo.cli.server import PACK
from firstframe.tests import graphs, sparse_files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.host.test_frame_similarity import latents
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def picture(host):
    return host.upload_image(PACK / "demo" / "example.png")


def test_one_node_is_the_sampler_of_many(host, picture):
    many, one = latents(host, graphs.ni_vsds(picture)), latents(host, graphs.animated(picture))
    assert torch.equal(many, one)
    still = latents(host, graphs.ni_vsds(picture, step_sizes="0"))
    assert (many - still).abs().max() > 0.01 and torch.allclose(still, still[:1].expand_as(still), atol=1e-5)


def test_presets(host, picture):
    by_hand = {"official code": dict(steps=4, tau=0.0, step_sizes="10, 10, 10, 1"), "paper": dict(steps=4, tau=0.4, step_sizes="1")}
    code, paper = (latents(host, graphs.animated(picture, steps=5, preset=preset)) for preset in by_hand)
    assert not torch.equal(code, paper)
    assert torch.equal(paper, latents(host, graphs.animated(picture, steps=5, tau=0.4, step_sizes="1")))
    assert torch.equal(code, latents(host, graphs.animated(picture, steps=5, tau=0.25, step_sizes="10, 10, 10, 1")))  # 4 of the levels 1, 0.75, 0.5, 0.25, 0


@pytest.mark.parametrize("change, says", [
    (dict(step_sizes="one"), "NI-VSDS needs numbers from 0 to 100 with commas between them in 'step_sizes', such as 10, 10, 10, 1, got 'one'"),
    (dict(step_sizes="1, 1, 1, 1, 1"), "NI-VSDS got 5 step sizes for"),
    (dict(step_sizes="-1"), "NI-VSDS needs numbers from 0 to 100"),
])
def test_bad_courses_are_refused_and_the_next_graph_gives_the_same_bits(host, picture, change, says):
    before = latents(host, graphs.ni_vsds(picture))
    assert says in host.run_expecting_error(graphs.ni_vsds(picture, **change))
    assert torch.equal(latents(host, graphs.ni_vsds(picture)), before)


def test_no_noise_and_a_flipped_schedule_are_refused(host, picture):
    quiet, up = graphs.ni_vsds(picture), graphs.ni_vsds(picture)
    quiet["random"] = {"class_type": "DisableNoise", "inputs": {}}
    assert "NI-VSDS got no noise. Connect RandomNoise" in host.run_expecting_error(quiet)
    up["flip"] = {"class_type": "FlipSigmas", "inputs": {"sigmas": ["sigmas", 0]}}
    up["sample"]["inputs"]["sigmas"] = ["flip", 0]
    assert "NI-VSDS needs 'sigmas' that fall from step to step" in host.run_expecting_error(up)


def test_a_motion_module_at_frames_1_draws_single_pictures_by_its_own_schedule(host):
    def drawn(pictures, **motion):
        graph = graphs.motion(graphs.MOTION, pictures)
        graph["motion"]["inputs"] |= motion
        return latents(host, graph)

    pictures = drawn(3, frames=1)
    assert tiny.difference(drawn(1, frames=1), pictures[:1]) < 1e-5 and not torch.allclose(drawn(3), pictures, atol=1e-2)
    assert torch.equal(drawn(3, frames=1, beta_schedule="keep"), latents(host, graphs.plain(3))) and not torch.equal(pictures, latents(host, graphs.plain(3)))


def test_on_the_i2v_adapters_model_frame_1_stays_the_picture(host, picture):
    graph = graphs.animated(picture)
    graph |= {k: node for k, node in graphs.i2v_adapter(picture, graphs.I2V).items() if k in ("module", "motion", "adapter", "i2v")}
    graph["sample"]["inputs"]["model"] = ["i2v", 0]
    kept, first = latents(host, graph), latents(host, graphs.plain(1) | {k: graph[k] for k in ("picture", "encode")}, "encode")
    assert tiny.difference(kept[:1], first) < 1e-5 and all(tiny.difference(frame[None], first) > 0.01 for frame in kept[1:])
    graph["sample"]["inputs"]["model"] = ["motion", 0]
    free = latents(host, graph)
    assert tiny.difference(free[:1], first) > 0.01 and not torch.allclose(free[1:], kept[1:], atol=1e-3)


def test_sparse_ctrl_guides_it(host, picture):
    save_file(sparse_files.model("rgb", tiny.SHAPES["demo"][1]), host.base / "models" / "controlnet" / graphs.SPARSE)
    graph = graphs.animated(picture)
    graph |= {k: node for k, node in graphs.sparse_ctrl(picture, frame_numbers="0").items() if k in ("module", "motion", "sparse", "control")}
    graph["sample"]["inputs"]["model"] = ["motion", 0]
    without = latents(host, graph)
    graph["sample"]["inputs"] |= {"positive": ["control", 0], "negative": ["control", 1]}
    guided = latents(host, graph)
    assert torch.isfinite(guided).all() and not torch.allclose(guided, without, atol=1e-3) and torch.equal(guided, latents(host, graph))
    graph["control"]["inputs"]["strength"] = 0.0
    assert torch.equal(latents(host, graph), without)
