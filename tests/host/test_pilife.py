"""PiLife's graph on the real server: runs, repeats itself bit for bit, and refuses what it should at the right node."""
import re

import numpy as np
import pytest
from firstframe.demo.cli import outputs
from firstframe.demo.cli.server import PACK
from firstframe.tests import graphs
from firstframe.tests.interrupted import run_interrupted


@pytest.fixture(scope="module")
def picture(host):
    return host.upload_image(PACK / "demo" / "example.png")


def frames(host, graph) -> list:
    return outputs.read_webp(host.fetch(host.run(graph)["save"]["images"][0]), 8.0)[0]


def array(image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), float)


def test_the_whole_graph_keeps_the_picture_and_repeats_itself(host, picture):
    graph = graphs.pilife(picture)
    first, again = frames(host, graph), frames(host, graph)
    assert len(first) == 3 and all((array(a) == array(b)).all() for a, b in zip(first, again))
    assert np.abs(array(first[1]) - array(first[0])).mean() > 0.5
    graph["guider"]["inputs"] |= {"positive": ["invert", 2], "cfg": 1.0}  # the found embeddings alone
    back = frames(host, graph)[0]
    graph["decode"]["inputs"]["samples"] = ["encode", 0]
    assert np.abs(array(back) - array(frames(host, graph)[0])).mean() < 3  # of 255


@pytest.mark.parametrize("mode", ["null-text", "none"])
def test_the_other_modes(host, picture, mode):
    assert len(frames(host, graphs.pilife(picture, mode=mode))) == 3


@pytest.mark.parametrize("mode", ["conditional", "null-text"])
def test_lora_and_controlnet_take_part_and_leave_the_model_as_it_was(host, picture, mode):
    plain, both = graphs.pilife(picture, mode=mode), graphs.with_lora_and_controlnet(graphs.pilife(picture, mode=mode))
    before, first = frames(host, plain), frames(host, both)
    assert np.abs(array(first[1]) - array(before[1])).mean() > 0.5
    for graph, want in ((plain, before), (both, first)):
        assert all((array(a) == array(b)).all() for a, b in zip(frames(host, graph), want))


def test_report_and_plot_are_shown_at_the_node(host, picture):
    out = host.run(graphs.pilife(picture))
    assert "PSNR" in out["invert"]["text"][0] and out["invert"]["images"][0]["type"] == "temp"
    assert out["clip"]["text"][0].count("\n") == 2 and out["clip"]["text"][0].startswith("frame 1: distance 0.0")


def test_the_default_leaves_guidance_something_to_act_on(host, picture):
    """cfg multiplies what the embeddings leave; with extra calls on the way up they stay the prompt's own, and leave next to nothing."""
    graph, left = graphs.pilife(picture), {}
    for refine in (-1, 3):
        graph["invert"]["inputs"]["refine"] = refine
        text = host.run(graph)["invert"]["text"][0]
        left[refine] = float(re.search(r"Guidance left: ([\d.]+)", text)[1])
    assert left[-1] > 10 * left[3]


def test_either_noise_node_can_be_left_out_and_a_plain_sampler_used(host, picture):
    graph = graphs.pilife(picture)
    graph["random"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}
    graph["clip"]["inputs"]["noise"] = ["random", 0]
    del graph["init"]
    assert len(frames(host, graph)) == 3
    graph["sample"] = {"class_type": "SamplerCustom", "inputs": {
        "model": ["patch", 0], "add_noise": False, "noise_seed": 0, "cfg": 4.0, "positive": ["positive", 0], "negative": ["negative", 0],
        "sampler": ["euler", 0], "sigmas": ["invert", 3], "latent_image": ["clip", 1]}}
    del graph["guider"]
    assert len(frames(host, graph)) == 3


def test_the_report_judges_the_picture_too(host, picture):
    graph = graphs.pilife(picture)
    graph["invert"]["inputs"]["vae"] = ["vae", 0]
    assert "dB in the picture" in host.run(graph)["invert"]["text"][0]


def test_an_interrupted_inversion(host, picture):
    plain = graphs.plain()
    before = frames(host, plain)
    assert run_interrupted(host, graphs.pilife(picture, steps=1000, mode="null-text"), 4).interrupted
    assert all((array(a) == array(b)).all() for a, b in zip(frames(host, plain), before))
    assert len(frames(host, graphs.pilife(picture))) == 3


def test_what_does_not_fit_is_refused_where_it_is_wrong(host, picture):
    plain = graphs.plain()
    before = frames(host, plain)
    wrong = graphs.pilife(picture)
    wrong["invert"]["inputs"]["mode"] = "null-text"
    del wrong["invert"]["inputs"]["negative"]
    assert "'negative' is not connected" in host.run_expecting_error(wrong)
    wrong = graphs.pilife(picture)
    wrong["invert"]["inputs"]["samples"] = ["many", 0]
    wrong["many"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 2}}
    assert "needs the latent of one picture" in host.run_expecting_error(wrong)
    wrong = graphs.pilife(picture)
    wrong["sample"]["inputs"]["latent_image"] = ["many", 0]
    wrong["many"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 128, "batch_size": 3}}
    assert "asked for noise of [3, 4, 16, 8]" in host.run_expecting_error(wrong)
    wrong = graphs.pilife(picture)
    wrong["invert"]["inputs"]["model"] = ["patch", 0]
    assert "what goes into Probabilistic Cross-Frame Attention" in host.run_expecting_error(wrong)
    wrong = graphs.pilife(picture)
    wrong["flow"] = {"class_type": "ModelSamplingSD3", "inputs": {"model": ["model", 0], "shift": 3.0}}
    wrong["invert"]["inputs"]["model"] = ["flow", 0]
    assert "Move the Model Sampling node (flow, EDM, LCM) behind this one" in host.run_expecting_error(wrong)
    wrong = graphs.pilife(picture)
    wrong["init"]["inputs"]["motion"] = ["masks", 0]
    wrong["mask"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 16, "height": 16}}
    wrong["image"] = {"class_type": "MaskToImage", "inputs": {"mask": ["mask", 0]}}
    wrong["images"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["image", 0], "amount": 2}}
    wrong["masks"] = {"class_type": "ImageToMask", "inputs": {"image": ["images", 0], "channel": "red"}}
    assert "mask of 2 frames for a clip of 3" in host.run_expecting_error(wrong)
    for outside in (0, 1000):
        wrong = graphs.pilife(picture)
        wrong["invert"]["inputs"]["start_timestep"] = outside
        assert "start_timestep" in host.run_expecting_error(wrong)
    after = frames(host, plain)
    assert all((array(a) == array(b)).all() for a, b in zip(before, after))
