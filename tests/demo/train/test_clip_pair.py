"""The demo's CLIP pair in training: what a batch shows, what its readers are asked, and that the host reads what is saved."""
import random
from dataclasses import replace

import comfy.clip_vision
import comfy.sd
import comfy.utils
import pytest
import torch
from firstframe.demo import in_process
from firstframe.demo.train import clip_pair
from firstframe.demo.train.denoising import Tokens
from firstframe.demo.world import scene, shapes
from safetensors.torch import load_file


def words(s: scene.Scene) -> set:
    return set(s.caption(motion=False).split()) - {"a", "an"}


def test_a_twin_differs_by_one_word():
    rng, changed = random.Random(1), set()
    for _ in range(60):
        s = scene.random_scene(rng, two=0.3)
        other = clip_pair.twin(s, rng)
        assert other.caption() != s.caption() and len(words(other) - words(s)) <= 1 and len(words(s) - words(other)) <= 1
        changed |= {("kind", "ground")[i] for i, same in enumerate((s.kind == other.kind, s.ground == other.ground)) if not same}
        changed |= {what for a, b in zip(s.bodies, other.bodies) for what in ("shape", "colour") if getattr(a, what) != getattr(b, what)}
        assert all(b.colour != other.ground for b in other.bodies)
    assert changed == {"kind", "ground", "shape", "colour"}


def test_what_the_readers_are_asked_is_what_is_drawn():
    s = scene.held_back_scene("readers", ("moving right",))
    s = replace(s, rgb=(0.0, 0.0, 0.0), kind="plain", bodies=(replace(s.bodies[0], rgb=(1.0, 1.0, 1.0)),))
    parts, names = clip_pair.covered(s, 0.3, 8)
    drawn = s.draw([0.3])[0, ..., 0]
    small = drawn.unflatten(0, (32, 4)).unflatten(2, (32, 4)).mean((1, 3))
    assert (parts.view(8, 8, 4, 4).transpose(1, 2).reshape(32, 32) - small).abs().mean() < 0.01
    share = drawn.unflatten(0, (8, 16)).unflatten(2, (8, 16)).mean((1, 3)).flatten()
    number = 1 + shapes.SHAPES.index(s.bodies[0].shape)
    assert set(names.tolist()) == {0, number} and (names[share > 0.15] == number).all() and (names[share < 0.05] == 0).all()


def test_the_same_caption_twice_is_no_wrong_answer():
    own, other = torch.eye(2)
    captions = ["a", "a", "b"]
    loss, right = clip_pair.contrast(torch.stack([own, own, other]), torch.stack([own, own, other]), captions, torch.tensor(100.0).log())
    assert loss < 1e-6 and right == 1
    worse, _ = clip_pair.contrast(torch.stack([own, own, other]), torch.stack([own, other, own]), captions, torch.tensor(100.0).log())
    assert worse > 10


@torch.no_grad()
def test_the_host_reads_the_published_tower_as_it_was_trained():
    pictures = torch.cat([scene.held_back_scene(f"tower {i}").draw([0.5]) for i in range(3)])
    host = comfy.clip_vision.load(str(in_process.CLIP_VISION)).encode_image(pictures)
    ours = clip_pair.tower_as_published()(pixel_values=clip_pair.normalised(pictures.permute(0, 3, 1, 2)), output_hidden_states=True)
    for found, wanted in ((host["image_embeds"], ours.image_embeds), (host["penultimate_hidden_states"], ours.hidden_states[-2])):
        assert (found - wanted).abs().max() < 0.01 * wanted.abs().max()  # the host computes it in half precision


@torch.no_grad()
def test_the_host_reads_the_published_text_projection_as_it_was_trained():
    _, clip, _ = in_process.load()
    _, projected = comfy.sd.load_lora_for_models(None, clip, comfy.utils.load_torch_file(str(in_process.CLIP_TEXT)), 0.0, 1.0)
    caption = "a red circle on a blue background"
    projected.load_model()
    tokens = torch.tensor([[t[0] for t in projected.tokenize(caption)["l"][0]]])
    found = projected.cond_stage_model.clip_l.transformer(tokens)[2]
    _, text = clip_pair.frozen()
    wanted = text(input_ids=Tokens()([caption])).pooler_output @ load_file(in_process.CLIP_TEXT)[clip_pair.PROJECTION].float().T
    assert torch.allclose(found.float(), wanted, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(found.float(), text(input_ids=Tokens()([caption])).pooler_output, atol=0.1)


@torch.no_grad()
def test_the_published_pair_knows_each_word():
    rng, right = random.Random(5), {}
    tower, (_, text) = clip_pair.tower_as_published(), clip_pair.frozen()
    projection, tokens = load_file(in_process.CLIP_TEXT)[clip_pair.PROJECTION].float(), Tokens()
    for i in range(80):
        s = scene.held_back_scene(f"pair {i}")
        other = clip_pair.twin(s, rng)
        what = next(name for name in ("kind", "ground", "shape", "colour") if getattr(s, name, None) != getattr(other, name, None) or getattr(s.bodies[0], name, None)
                    != getattr(other.bodies[0], name, None))
        said = text(input_ids=tokens([s.caption(motion=False), other.caption(motion=False)])).pooler_output @ projection.T
        seen = tower(pixel_values=clip_pair.normalised(s.draw([0.5]).permute(0, 3, 1, 2))).image_embeds
        own, wrong = torch.nn.functional.cosine_similarity(seen, said)
        right.setdefault(what, []).append(bool(own > wrong))
    assert {what: sum(found) / len(found) for what, found in right.items()} == {what: pytest.approx(1, abs=0.15) for what in ("kind", "ground", "shape", "colour")}
