"""I4VGen's first stage on the real server, with the demo's CLIP pair as the reward: choosing among a batch, and the search."""
import io

import pytest
import torch
from firstframe.tests import graphs
from firstframe.tests import tiny_models as tiny
from firstframe.tests.host.test_frame_similarity import latents
from PIL import Image
from safetensors.torch import load_file


def text_of(host, graph: dict, node: str, output: int) -> str:
    graph = {k: v for k, v in graph.items() if k not in ("save",)} | {"see": {"class_type": "PreviewAny", "inputs": {"source": [node, output]}}}
    return host.run(graph)["see"]["text"][0]


def output(host, graph: dict, node: str, number: int) -> torch.Tensor:
    """The latent at that output."""
    graph = {k: v for k, v in graph.items() if k != "save"} | {"kept": {"class_type": "SaveLatent", "inputs": {"samples": [node, number], "filename_prefix": "test"}}}
    saved = host.run(graph)["kept"]["latents"][0]
    return load_file(host.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


@pytest.fixture(scope="module")
def everything(host):
    return latents(host, graphs.selected())


def test_the_best_latent_is_the_one_of_the_highest_score(host, everything):
    lines = text_of(host, graphs.selected(), "select", 4).splitlines()
    index = int(text_of(host, graphs.selected(), "select", 2))
    scores = [float(line.split(": ")[1]) for line in lines]
    assert len(lines) == 4 and scores == sorted(scores, reverse=True) and lines[0].startswith(f"1. image {index + 1}: ")
    assert torch.equal(output(host, graphs.selected(), "select", 1), everything[index:index + 1])


def test_the_sheet_is_on_the_node(host):
    shown = host.run({k: v for k, v in graphs.selected().items() if k != "save"} | {"see": {"class_type": "PreviewImage", "inputs": {"images": ["select", 3]}}})
    assert len(shown["see"]["images"]) == 2 and len(shown["select"]["images"]) == 1  # the two best, and the sheet


def test_the_searchs_sheet_is_on_its_node(host):
    shown = host.run(graphs.searched() | {"see": {"class_type": "PreviewImage", "inputs": {"images": ["search", 0]}}})
    assert len(shown["see"]["images"]) == len(shown["search"]["images"]) == 1
    with Image.open(io.BytesIO(host.fetch(shown["search"]["images"][0]))) as sheet:
        assert sheet.size == (2 * 262, 2 * 282)  # four candidates


def test_off_the_search_is_sampler_and_choice(host, everything):
    index = int(text_of(host, graphs.selected(), "select", 2))
    for off in ({"halve_after": ""}, {"drop": 0.0}):
        graph = graphs.searched(**off)
        assert int(text_of(host, graph, "search", 2)) == index and torch.equal(output(host, graph, "search", 1), everything[index:index + 1])
    assert "24 model calls of one candidate, 6.00 times the batch's (all to the end: 6)" in text_of(host, graphs.searched(halve_after=""), "search", 3)


def test_the_search_gives_a_candidate_as_it_would_be_for_fewer_calls(host, everything):
    index, said = int(text_of(host, graphs.searched(), "search", 2)), text_of(host, graphs.searched(), "search", 3)
    assert said.splitlines()[0] == f"image {index + 1} of 4; 14 model calls of one candidate, 3.50 times the batch's (all to the end: 6)"  # 4 x 2, 2 x 2, 1 x 2
    assert tiny.difference(output(host, graphs.searched(), "search", 1), everything[index:index + 1]) < 1e-4


def test_drafts_cost_what_they_say_and_the_best_ones_are_sampled_as_they_would_be(host, everything):
    graph = graphs.searched(halve_after="", draft_steps=2, finalists=1)
    index, said = int(text_of(host, graph, "search", 2)), text_of(host, graph, "search", 3)
    assert said.splitlines()[0] == f"image {index + 1} of 4; 14 model calls of one candidate, 3.50 times the batch's (all to the end: 6)"  # 4 x 2 of drafts, 6
    assert tiny.difference(output(host, graph, "search", 1), everything[index:index + 1]) < 1e-4
    assert torch.equal(output(host, graphs.searched(halve_after="", draft_steps=2, finalists=4), "search", 1), output(host, graphs.searched(halve_after=""), "search", 1))


def test_the_anchor_comes_to_life(host):
    graph = graphs.searched()
    graph["module"] = {"class_type": "FF_MotionModuleLoader", "inputs": {"motion_module": graphs.MOTION}}
    graph["motion"] = {"class_type": "FF_MotionModuleApply", "inputs": {"model": ["model", 0], "motion_module": ["module", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}}
    graph["animate"] = {"class_type": "FF_AnimateAnchor", "inputs": {
        "model": ["motion", 0], "positive": ["positive", 0], "negative": ["negative", 0], "samples": ["search", 1], "frames": 3, "seed": 5, "steps": 5, "cfg": 4.0,
        "scheduler": "normal", "preset": "official code", "tau": 0.4, "step_sizes": "1"}}
    clip = latents(host, graph, "animate")
    assert clip.shape == (3, 4, 16, 16) and torch.isfinite(clip).all() and not torch.allclose(clip[0], clip[1], atol=0.01)


@pytest.mark.parametrize("graph, says", [
    (graphs.selected(prompt=" "), "Select Anchor Image needs a prompt"),
    (graphs.searched(prompt=""), "Search Anchor Image needs a prompt"),
    (graphs.searched(halve_after="2, 9"), "Search Anchor Image scores after whole steps in rising order, from 1 to 5 of 6, got 2, 9 in 'halve_after'"),
    (graphs.searched(draft_steps=6), "Search Anchor Image draws drafts in fewer steps than the schedule has, got 6 in 'draft_steps' and 6 steps in 'sigmas'"),
    (graphs.searched(halve_after="soon"), "Search Anchor Image needs numbers from 1 to 10000"),
])
def test_bad_input_is_refused(host, graph, says):
    if "select" in graph:
        graph["save"] = {"class_type": "PreviewImage", "inputs": {"images": ["select", 0]}}
    else:
        graph["save"] = {"class_type": "PreviewImage", "inputs": {"images": ["search", 0]}}
    assert says in host.run_expecting_error(graph)


def test_without_latents_what_needs_one_says_so(host):
    graph = graphs.selected()
    del graph["select"]["inputs"]["samples"]
    graph["save"] = {"class_type": "SaveLatent", "inputs": {"samples": ["select", 1], "filename_prefix": "test"}}
    found = host.run(graph)
    assert "save" not in found and len(found["select"]["images"]) == 1  # the host sends the sentence to the page
