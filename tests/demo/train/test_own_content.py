"""Training a Content-Adapter for a user's files: what is trained is what the node computes, a stopped run goes on, bad input is refused in a sentence."""
import random
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from firstframe.demo import in_process
from firstframe.demo.comfy_support import VISION
from firstframe.demo.train import own_content, own_training
from firstframe.demo.train.own_model import OwnModel
from firstframe.networks.content_adapter import content_adapter, shapes
from firstframe.networks.image_projection import image_projection
from firstframe.nodes.content_adapter import ContentAdapterApply, ContentAdapterLoader
from firstframe.tests import adapter_files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.own_files import conditions, drawn_clips, stops_after_a_step, words
from safetensors.torch import load_file, save_file

PICTURES = 2


def prepared(model, clip, tmp_path):
    """(OwnModel, the adapter begun with random weights, its layers, the file's tensors, CLIP's features of no picture)."""
    weights = adapter_files.adapter(model, "plus")
    save_file(weights, tmp_path / "begin.safetensors")
    plan, begun, no_picture = own_content.planned(model, clip, tmp_path / "begin.safetensors")
    own = OwnModel(model, None, torch.float32)
    return own, *own_content.build_planned(own.unet, plan, begun), weights, no_picture


@pytest.mark.parametrize("save_memory", [False, True])
@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_what_is_trained_is_what_the_node_computes(family, save_memory, tmp_path):
    import comfy.sample
    import comfy.samplers
    model, clip, pictures = tiny.model(family), adapter_files.clip_vision(), adapter_files.pictures(PICTURES)
    own, adapter, layers, weights, no_picture = prepared(model, clip, tmp_path)
    z0, eps, inside = tiny.latents(PICTURES, seed=1), tiny.latents(PICTURES, seed=11), model.model.latent_format.process_in
    patched = ContentAdapterApply.execute(model, content_adapter(weights, "a"), clip, pictures, 1.0, 0.0, 1.0).result[0]
    sigma = patched.get_model_object("model_sampling").sigmas[600]

    def sampled(m, cfg):
        out = comfy.sample.sample_custom(m, eps, cfg, comfy.samplers.sampler_object("euler"), torch.stack([sigma, torch.zeros(())]), tiny.conditioning(9), tiny.conditioning(9), z0,
                                         disable_pbar=True, seed=1)
        return inside(out)
    x, t, given = inside(z0) + sigma * eps, torch.full((PICTURES,), 600), {name: value.repeat(PICTURES, *[1] * (value.ndim - 1)) for name, value in conditions(own, 1).items()}

    @torch.no_grad()
    def trained(seen):
        tokens = adapter["image_proj"](seen)
        with own.with_content(adapter, layers, lambda: tokens, save_memory):
            return x - sigma * own.predicted(own.abar[600].sqrt() * x, t, given)
    seen = clip.encode_image(pictures)["penultimate_hidden_states"]
    assert tiny.difference(trained(seen), sampled(patched, 1.0)) <= 1e-5
    assert tiny.difference(trained(no_picture.expand(PICTURES, -1, -1)), sampled(patched, 0.0)) <= 1e-5  # cfg 0: the negative side, which sees no picture
    assert tiny.difference(trained(seen), sampled(model, 1.0)) > 0.01


@pytest.mark.parametrize("name, context", [("ip-adapter-plus_sd15", 768), ("ip-adapter-plus_sdxl_vit-h", 2048)])
def test_sizes_are_the_published_ones(name, context):
    found = shapes(partial(image_projection, own_content.size_for(context, 1280)), "")
    assert {key: tuple(shape) for key, shape in found.items()} == adapter_files.PUBLISHED[name][0]


def test_gradients_reach_the_adapter_alone_and_memory_is_saved_without_changing_them(tmp_path):
    model, clip = tiny.model("SD1.5", **tiny.SMALL), adapter_files.clip_vision()
    own, adapter, layers, _, _ = prepared(model, clip, tmp_path)
    given, seen, t, found = conditions(own, PICTURES), torch.randn(PICTURES, 5, adapter_files.HIDDEN), torch.tensor([100, 700]), {}
    for save_memory in (False, True):
        adapter.zero_grad()
        torch.manual_seed(0)
        tokens = adapter["image_proj"](seen)
        with own.with_content(adapter, layers, lambda tokens=tokens: tokens, save_memory):
            own_training.loss_of(own, tiny.latents(PICTURES), given, t, clean_first=False).backward()
        found[save_memory] = {name: p.grad.clone() for name, p in adapter.named_parameters()}
    torch.testing.assert_close(found[True], found[False])
    assert all(grad.abs().max() > 0 for grad in found[False].values())
    assert all(p.grad is None for p in own.base.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__ for module in own.unet.modules())


@pytest.fixture
def folder(tmp_path):
    """Drawn clips, and a tower of the demo's kind with random weights."""
    drawn_clips(tmp_path / "clips")
    save_file({key: value.float().contiguous() for key, value in adapter_files.clip_vision(**VISION).get_sd().items()}, tmp_path / "vision.safetensors")
    return tmp_path


def arguments(folder, out: str = "a.safetensors", **options) -> list[str]:
    return words(**{"checkpoint": in_process.CHECKPOINT, "vae": in_process.VAE, "clip_vision": folder / "vision.safetensors", "clips": folder / "clips", "out": folder / out,
                    "size": "64x64", "batch": 2, "precision": "float32", **options})


def test_a_folder_of_clips(folder, capsys, monkeypatch):
    import comfy.clip_vision
    import folder_paths
    assert own_content.main(arguments(folder, "whole.safetensors", steps=3)) == 0
    told = capsys.readouterr().err
    assert "four.mp4 is left out: it cannot be read" in told and "3 clips" in told and "3/3" in told and "loss=" in told

    assert own_content.main(arguments(folder, steps=2)) == 0
    cached = {file: file.stat().st_mtime_ns for file in (folder / "a.safetensors.training" / "cache").iterdir()}
    monkeypatch.setattr(own_training, "ctrl_c", stops_after_a_step(own_training.ctrl_c))
    assert own_content.main(arguments(folder, steps=9)) == 130
    assert {file: file.stat().st_mtime_ns for file in (folder / "a.safetensors.training" / "cache").iterdir()} == cached
    assert (folder / "a.safetensors.training" / "step_000003.safetensors").read_bytes() == (folder / "a.safetensors").read_bytes()
    whole, resumed = load_file(folder / "whole.safetensors"), load_file(folder / "a.safetensors")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    begun = load_file(folder / "a.safetensors.training" / "step_000002.safetensors")
    assert all(not torch.equal(resumed[key], begun[key]) for key in ("image_proj.latents", "ip_adapter.1.to_k_ip.weight"))

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "ipadapter", ([str(folder)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    adapter = ContentAdapterLoader.execute("a.safetensors").result[0]
    assert (adapter.size.tokens, adapter.size.dim, adapter.size.depth, adapter.size.embedding) == (16, 64, 4, 128)
    model, clip = in_process.load()[0], comfy.clip_vision.load(str(folder / "vision.safetensors"))
    assert model is not ContentAdapterApply.execute(model, adapter, clip, adapter_files.pictures(), 1.0, 0.0, 1.0).result[0]


def test_features_of_each_frame_are_kept_and_bfloat16_learns(folder):
    import comfy.clip_vision
    from firstframe.demo.train.clip_folder import find_clips, frames
    own_content.main(arguments(folder, steps=1, lr=0.0))
    begun = load_file(folder / "a.safetensors")
    own_content.main(arguments(folder, steps=2, lr=1e-2, precision="bfloat16"))
    learned = load_file(folder / "a.safetensors")
    assert all(value.isfinite().all() and not torch.equal(value, begun[key]) for key, value in learned.items())
    file, = (folder / "a.safetensors.training" / "cache").glob("one*")
    pictures = torch.stack(list(frames(find_clips(folder / "clips")[0][2], 8, 64, 64)))
    with torch.no_grad():
        wanted = comfy.clip_vision.load(str(folder / "vision.safetensors")).encode_image(pictures)["penultimate_hidden_states"]
    torch.testing.assert_close(load_file(file)["features"], wanted.half())
    assert len(wanted) == len(load_file(file)["z"]) == 5 and not torch.equal(wanted[0], wanted[1])


def test_clip_sees_another_frame_and_words_and_pictures_are_left_out():
    class Clip:
        length, drawn = 3, {"z": [], "features": []}

        def read(self, start, n, name="z"):
            self.drawn[name].append(start)
            return torch.full((n, 4, 8, 8) if name == "z" else (n, 5, 8), 1.0 + start).half()

        def conditions(self):
            return {"c_crossattn": torch.ones(1, 7, 8).half()}

    rng, nothing, seen, said = random.Random(0), torch.zeros(1, 5, 8), [], []
    for _ in range(60):
        z, features, given = own_content.batch_of([Clip()], {"c_crossattn": torch.zeros(1, 7, 8).half()}, nothing, SimpleNamespace(batch=2, no_picture=0.3, no_caption=0.1), rng)
        assert z.shape == (2, 4, 8, 8) and features.shape == (2, 5, 8) and z.dtype == features.dtype == torch.float32
        assert not any(torch.equal(a.flatten()[0], b.flatten()[0]) for a, b in zip(z, features))
        seen += [float(one.mean()) for one in features]
        said += [float(one.mean()) for one in given["c_crossattn"]]
    assert set(seen) == {0, 1, 2, 3} and 24 <= seen.count(0) <= 48 and set(said) == {0, 1} and 4 <= said.count(0) <= 24
    Clip.length = 1
    z, features, _ = own_content.batch_of([Clip()], {}, nothing, SimpleNamespace(batch=1, no_picture=0, no_caption=1), rng)
    assert z.mean() == features.mean() == 1


def demo_adapter(folder, **sizes):
    """A file of random weights for the demo's checkpoint and tower."""
    from firstframe.attention_patches.unet import cross_layers
    channels = [layer.widths[0] for layer in cross_layers(in_process.load()[0].model.diffusion_model)]
    return adapter_files.random(adapter_files.published(adapter_files.plus(64, **{"embedding": 128, **sizes}), channels, 64))


def test_it_begins_with_an_adapter(folder):
    weights = {key: value.half() for key, value in demo_adapter(folder, dim=128, depth=2, tokens=8).items()}
    save_file(weights, folder / "first.safetensors")
    own_content.main(arguments(folder, steps=1, lr=0.0, begin_with=folder / "first.safetensors"))
    found = load_file(folder / "a.safetensors")
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in found)
    assert "begun with projector" in refused(folder)


def refused(folder, **options) -> str:
    with pytest.raises(SystemExit) as caught:
        own_content.main(arguments(folder, **options))
    return str(caught.value)


def test_bad_input_is_refused_before_clips_are_encoded(folder):
    def begin_with(weights):
        save_file(weights, folder / "first.safetensors")
        return refused(folder, begin_with=folder / "first.safetensors")

    assert "There is no file" in refused(folder, clip_vision=folder / "nothing.safetensors")
    assert "cannot read" in refused(folder, clip_vision=folder / "clips" / "four.mp4")
    assert "finds no CLIP image tower in 'firstframe_demo_vae.safetensors'. Give --clip-vision" in refused(folder, clip_vision=in_process.VAE)
    assert "found a checkpoint" in refused(folder, begin_with=in_process.CHECKPOINT)
    assert "has 4 tokens of a picture (plain). Expected one of the kind plus" in begin_with(adapter_files.adapter(in_process.load()[0]))
    assert "does not fit this FirstFrameDemo model" in begin_with(adapter_files.adapter(tiny.model("SD1.5"), "plus"))
    assert "takes image features that are 96 wide" in begin_with(demo_adapter(folder, embedding=96))
    assert not (folder / "a.safetensors.training").exists()
    for clip in (folder / "clips").glob("*.webp"):
        clip.write_bytes(b"no picture")
    for picture in (folder / "clips" / "two").iterdir():
        picture.write_bytes(b"no picture")
    assert "None of the 4 clips can be read." in refused(folder)
