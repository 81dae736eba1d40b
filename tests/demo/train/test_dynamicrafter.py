"""The demo's DynamiCrafter in training: it begins as the image model, all of it learns, its file is read by the loader, a stopped run goes on."""
import random

import numpy as np
import pytest
import torch
from firstframe.demo import in_process
from firstframe.demo.tables import dynamicrafter as table
from firstframe.demo.train import clips, dynamicrafter_clips, dynamicrafter_file, stage
from firstframe.demo.train import dynamicrafter as train
from firstframe.demo.train.host_layers import OPTIONS
from firstframe.demo.train.motion_module_file import published
from firstframe.demo.world import scene
from firstframe.networks import lvdm_files
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file

C, F = 2, 8  # clips, frames of each


@pytest.fixture(scope="module")
def begun():
    """(networks, text encoder, the image model with the LoRA of motion words)."""
    kept, dynamicrafter_file.DYNAMICRAFTER = dynamicrafter_file.DYNAMICRAFTER, in_process.WEIGHTS / "nothing"
    net, text, had = dynamicrafter_file.build()
    dynamicrafter_file.DYNAMICRAFTER = kept
    assert had == 0
    return net, text, published()[0]


def given(both_ends: bool) -> dynamicrafter_clips.Batch:
    z = tiny.latents(C * F, 16)
    beside = z.unflatten(0, (C, F))[:, :1].repeat(1, F, 1, 1, 1)
    if both_ends:
        beside[:, 1:] = 0
        beside[:, -1] = z.unflatten(0, (C, F))[:, -1]
    return dynamicrafter_clips.Batch(z, beside.flatten(0, 1), torch.randn(C, 65, 128), ["a red circle growing on a blue background", ""], torch.full((C * F,), 6),
                                     torch.zeros(C * F, 1, 16, 16), torch.zeros(C * F, 4))


@torch.no_grad()
def test_it_begins_as_the_image_model(begun):
    net, _, unet = begun
    numbers, t, text = range(0, 16, 2), torch.full((C * F,), 500), torch.randn(C * F, 77, 64)
    for both_ends in (False, True):
        batch = given(both_ends)
        found = train.with_picture(net, batch, numbers)(batch.z, t, text, transformer_options=OPTIONS)
        assert tiny.difference(found, unet(batch.z, t, text, transformer_options=OPTIONS)) <= 1e-5


def test_all_of_it_learns(begun):
    net, text, _ = begun
    readers, batch = train.readers_of(net["unet"]), given(True)
    picture, read = train.loss_of(net, text, readers, batch, range(0, 16, 2), train.Tokens(), train.alphas_cumprod(), lambda n: torch.full((n,), 500))
    picture.backward()
    assert picture.isfinite() and read.isfinite() and all(p.grad is None for p in text.parameters())
    assert all(p.grad is not None for p in net.parameters())
    moved = {name for name, p in net["unet"].named_parameters() if p.grad.abs().max() > 0}
    ends = ["init_attn.0.proj_out.weight", "middle_block.2.proj_out.weight", "middle_block.3.temopral_conv.conv4.3.weight", "output_blocks.5.1.transformer_blocks.0.attn2.to_v_ip.weight",
            "fps_embedding.2.weight"]
    assert {f"video.{end}" for end in ends} <= moved and net["unet"].input_blocks[0][0].weight.grad[:, 4:].abs().max() > 0
    assert len(readers.heads) == 16 == len(readers.seen)
    net.zero_grad()


def test_clips_of_three_speeds_and_what_is_left_out():
    s = next(s for i in range(99) if (s := scene.random_scene(random.Random(i), two=0)).bodies[0].motion == "moving right")
    whole, part = s.bodies[0], dynamicrafter_clips.slowed(s, 1, random.Random(1)).bodies[0]
    assert dynamicrafter_clips.slowed(s, 3, random.Random(1)).bodies[0].at(0.2) == pytest.approx(whole.at(0.2))
    assert part.at(1)[0] - part.at(0)[0] == pytest.approx((whole.at(1)[0] - whole.at(0)[0]) / 3) and whole.at(0)[0] <= part.at(0)[0] and part.at(1)[0] <= whole.at(1)[0]

    n = 400
    pool = {"z": torch.randn(n, 16, 4, 2, 2).half(), "distance": torch.zeros(n, 16, 1, 2, 2), "paths": torch.zeros(n, 16, 4), "captions": ["words"] * n,
            "features": torch.ones(n, 3, 5).half(), "strides": torch.full((n,), 3)}
    batch = dynamicrafter_clips.batch(pool, list(range(n)), range(0, 16, 2), torch.zeros(1, 3, 5), random.Random(0))
    z, beside = (x.unflatten(0, (n, 8)) for x in (batch.z, batch.beside))
    assert torch.equal(z, pool["z"][:, ::2].float()) and torch.equal(beside[:, 0], z[:, 0]) and set(batch.strides.tolist()) == {6} and len(batch.strides) == 8 * n
    two = (beside[:, 1] == 0).flatten(1).all(1)
    assert torch.equal(beside[two, -1], z[two, -1]) and not beside[two, 1:-1].any() and torch.equal(beside[~two, 5], z[~two, 0]) and 0.2 < two.float().mean() < 0.4
    words, seen = torch.tensor([c == "words" for c in batch.captions]), batch.features.flatten(1).all(1)
    shares = [(a & b).float().mean() for a, b in ((~words, seen), (words, ~seen), (~words, ~seen))]
    assert shares == pytest.approx([0.1, 0.1, 0.05], abs=0.04)


def test_a_run_goes_on_and_the_loader_reads_its_file(tmp_path, monkeypatch):
    file = tmp_path / "models" / "d.safetensors"
    for module in (in_process, dynamicrafter_file):
        monkeypatch.setattr(module, "DYNAMICRAFTER", file)
    monkeypatch.setattr(stage, "STATE", tmp_path / "state")
    monkeypatch.setattr(stage, "LOGS", tmp_path / "logs")
    for module in (clips, dynamicrafter_clips):
        monkeypatch.setattr(module, "POOL", 3)
    monkeypatch.setattr(train, "BATCH", 16)
    train.main(["1"])
    first = load_file(file)
    train.main(["2"])
    second = load_file(file)
    assert first.keys() == second.keys() and sum(not torch.equal(first[key], second[key]) for key in first) > 0.6 * len(first)  # the rest has not moved by half precision's step
    assert len((tmp_path / "logs" / "dynamicrafter.csv").read_text().splitlines()) == 3
    found = lvdm_files.look(second, file.name)
    assert (found.version.name, found.config["num_head_channels"], found.size.tokens, {size.heads for size in found.layout.transformers.values()}) == ("256", 16, 256, {4, 8})
    assert all(value.dtype == torch.half for value in second.values()) and dynamicrafter_file.steps_of(file) == 2
    (tmp_path / "state" / "dynamicrafter.pt").unlink()
    net, _, had = dynamicrafter_file.build()
    assert had == 2 and all(torch.equal(value.half(), second[key]) for key, value in dynamicrafter_file.tensors(net).items())

    monkeypatch.setitem(table.SETTINGS, "steps", 2)
    table.models.cache_clear()
    s = scene.held_back_scene("dynamicrafter", ("growing",))
    one, two = (table.clip_of(s.draw([0.0]), last, s.caption(), 0) for last in (None, s.draw([1.0])))
    table.models.cache_clear()
    assert one.shape == two.shape == (16, 128, 128, 3) and np.isfinite(one).all() and not np.array_equal(one, two)
