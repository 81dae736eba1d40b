"""The nodes of DynamiCrafter: what they make of a file and of pictures, and what they say about what they do not take."""
import functools

import comfy.sample
import comfy.sd
import comfy.utils
import firstframe.nodes.dynamicrafter as nodes
import pytest
import torch
from firstframe.demo import in_process
from firstframe.nodes.dynamicrafter import (
    DualCrossAttentionPatch,
    DynamiCrafterConditioning,
    DynamiCrafterLoader,
    TextAlignedImageEmbedding,
    VideoCrafterConditioning,
)
from firstframe.samplers.dynamicrafter import BLACK, FILL, MIDDLE, NOISE, STRETCH, WHOLE
from firstframe.tests import adapter_files, lvdm_files
from firstframe.tests import tiny_models as tiny
from safetensors.torch import save_file

WIDTH, FRAMES = tiny.CONTEXT, 3


@functools.cache
def vae():
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(in_process.VAE)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(nodes.folder_paths.folder_names_and_paths, nodes.FOLDER, ([str(tmp_path)], {".safetensors", ".ckpt"}))
    return tmp_path


@pytest.fixture
def loaded(folder):
    save_file(lvdm_files.file(WIDTH, adapter_files.HIDDEN), folder / "d.safetensors")
    return DynamiCrafterLoader.execute(dynamicrafter="d.safetensors", version="auto").result


def picture(height: int = 96, width: int = 160, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


def conditioned(projector, **inputs):
    good = dict(positive=tiny.conditioning(1), negative=tiny.conditioning(2), image_projector=projector, clip_vision=adapter_files.clip_vision(), vae=vae(), image=picture(),
                width=128, height=64, frames=FRAMES, fps=0)
    return DynamiCrafterConditioning.execute(**{**good, **inputs}).result


def clip(model, positive, negative, latent) -> torch.Tensor:
    noise = comfy.sample.prepare_noise(latent["samples"], 3)
    return comfy.sample.sample(model, noise, 2, 3.0, "euler", "normal", positive, negative, latent["samples"], disable_pbar=True, seed=3)


def test_what_the_conditioning_holds(loaded):
    model, projector = loaded[0], loaded[4]
    positive, negative, latent = conditioned(projector)
    (_, p), (_, n) = positive[0], negative[0]
    assert latent["samples"].shape == (FRAMES, 4, 8, 16) and not latent["samples"].any()
    assert p["fps"] == n["fps"] == 24 and p["image_tokens"].shape == (1, 256, WIDTH) and tiny.difference(p["image_tokens"], n["image_tokens"]) > 1e-2
    assert p["concat_latent_image"].shape == (1, 4, 8, 16) and torch.equal(p["concat_latent_image"], n["concat_latent_image"])
    assert torch.isfinite(clip(model, positive, negative, latent)).all()
    other = conditioned(projector, negative=tiny.conditioning(2), fps=7)[0][0][1]
    assert other["fps"] == 7 and torch.equal(other["image_tokens"], p["image_tokens"])


def test_two_pictures_and_a_loop(loaded):
    projector, last = loaded[4], picture(seed=1)
    z, loop = (conditioned(projector, **more)[0][0][1]["concat_latent_image"] for more in (dict(end_image=last), dict(loop=True)))
    one = conditioned(projector)[0][0][1]["concat_latent_image"]
    assert z.shape == (FRAMES, 4, 8, 16) and torch.equal(z[:1], one) and not z[1].any() and torch.equal(z[2:], conditioned(projector, image=last)[0][0][1]["concat_latent_image"])
    assert torch.equal(loop[[0, 2]], one.repeat(2, 1, 1, 1)) and not loop[1].any()


def test_every_option_counts(loaded):
    projector = loaded[4]
    p, n = (said[0][1] for said in conditioned(projector)[:2])
    for more in (dict(clip_sees=WHOLE), dict(clip_sees=MIDDLE)):
        found = conditioned(projector, **more)
        assert not torch.equal(found[0][0][1]["image_tokens"], p["image_tokens"]) and torch.equal(found[1][0][1]["image_tokens"], n["image_tokens"])
    for more in (dict(no_picture=BLACK), dict(no_picture=NOISE)):
        found = conditioned(projector, **more)
        assert torch.equal(found[0][0][1]["image_tokens"], p["image_tokens"]) and not torch.equal(found[1][0][1]["image_tokens"], n["image_tokens"])
    tall = picture(160, 96)
    frames = [conditioned(projector, image=tall, **more)[0][0][1]["concat_latent_image"] for more in (dict(), dict(fit=FILL), dict(fit=STRETCH))]
    assert all(not torch.equal(a, b) for a, b in zip(frames, [*frames[1:], frames[0]]))


def test_the_embedding_alone(loaded):
    model, _, _, _, projector = loaded
    positive, negative, latent = conditioned(projector)
    other = picture(seed=5)
    again = TextAlignedImageEmbedding.execute(positive=positive, negative=negative, image_projector=projector, clip_vision=adapter_files.clip_vision(), image=other).result
    assert torch.equal(again[0][0][1]["concat_latent_image"], positive[0][1]["concat_latent_image"]) and again[0][0][1]["fps"] == 24
    assert tiny.difference(again[0][0][1]["image_tokens"], positive[0][1]["image_tokens"]) > 1e-3 and torch.equal(again[1][0][1]["image_tokens"], negative[0][1]["image_tokens"])
    assert tiny.difference(clip(model, *again, latent), clip(model, positive, negative, latent)) > 1e-4


def test_the_weight_of_the_picture(loaded):
    model, projector = loaded[0], loaded[4]
    positive, negative, latent = conditioned(projector)
    bare = [[[c, {k: v for k, v in options.items() if k != "image_tokens"}]] for (c, options), in (positive, negative)]
    whole, without = clip(model, positive, negative, latent), clip(model, *bare, latent)

    def weighed(weight, start=0.0, end=1.0, onto=model, **more):
        return DualCrossAttentionPatch.execute(onto, weight, start, end, **more).result[0]

    assert torch.equal(clip(weighed(1.0), positive, negative, latent), whole) and tiny.difference(whole, without) > 1e-3
    assert tiny.difference(clip(weighed(0.0), positive, negative, latent), without) <= 1e-5
    assert torch.equal(clip(weighed(0.5, 1.0, 1.0), positive, negative, latent), whole)
    half = clip(weighed(0.5), positive, negative, latent)
    assert tiny.difference(clip(weighed(0.5, mask=torch.ones(1, 64, 128)), positive, negative, latent), half) <= 1e-5
    assert tiny.difference(clip(weighed(1.0, mask=torch.full((FRAMES, 8, 16), 0.5)), positive, negative, latent), half) <= 1e-5
    assert tiny.difference(clip(weighed(2.0, onto=weighed(0.25)), positive, negative, latent), half) <= 1e-5  # two of them multiply
    part = clip(weighed(0.5, 0.0, 0.5), positive, negative, latent)
    assert tiny.difference(part, half) > 1e-4 and tiny.difference(part, whole) > 1e-4
    with pytest.raises(ValueError, match="Dual Cross-Attention got 2 masks for 3 frames"):
        clip(weighed(1.0, mask=torch.ones(2, 8, 16)), positive, negative, latent)
    with pytest.raises(ValueError, match="attends to one by itself .*, got .* Connect the MODEL of Load DynamiCrafter"):
        weighed(0.5, onto=tiny.model(**tiny.SMALL))


def of_version(folder, version: str) -> tuple:
    save_file(lvdm_files.file(WIDTH, adapter_files.HIDDEN, version), folder / "v.safetensors")
    return DynamiCrafterLoader.execute(dynamicrafter="v.safetensors", version="auto").result


def test_videocrafter_from_a_picture(folder):
    model, *_, projector = of_version(folder, "VideoCrafter1 512 image to video")
    positive, negative, latent = conditioned(projector)
    assert positive[0][1]["image_tokens"].shape == (1, 16, WIDTH) and "concat_latent_image" not in positive[0][1] and positive[0][1]["fps"] == 8
    whole = clip(model, positive, negative, latent)
    assert tiny.difference(clip(model, *conditioned(projector, image=picture(seed=1))), whole) > 1e-3 and torch.isfinite(whole).all()
    for more in (dict(loop=True), dict(end_image=picture())):
        with pytest.raises(ValueError, match="'v.safetensors' is a VideoCrafter, which takes no last picture"):
            conditioned(projector, **more)


@pytest.mark.parametrize("version", ["VideoCrafter1 512", "VideoCrafter1 1024", "VideoCrafter2 512"])
def test_videocrafter_from_a_text(folder, version):
    model, *_, projector = of_version(folder, version)

    def made(**inputs):
        good = dict(model=model, positive=tiny.conditioning(1), negative=tiny.conditioning(2), width=128, height=64, frames=FRAMES, fps=28)
        return clip(model, *VideoCrafterConditioning.execute(**{**good, **inputs}).result)

    whole = made()
    assert projector is None and whole.shape == (FRAMES, 4, 8, 16) and torch.isfinite(whole).all()
    assert (tiny.difference(made(fps=8), whole) > 1e-4) == (version != "VideoCrafter1 512") and tiny.difference(made(positive=tiny.conditioning(3)), whole) > 1e-3
    with pytest.raises(ValueError, match="DynamiCrafter Conditioning needs the image_projector of Load DynamiCrafter .a VideoCrafter for text alone has none"):
        conditioned(projector)


@pytest.mark.parametrize("inputs, says", [
    (dict(), "needs a VideoCrafter in 'model', got a DynamiCrafter"), (dict(model=tiny.model(**tiny.SMALL)), "needs a VideoCrafter in 'model', got BaseModel")])
def test_other_models_have_another_conditioning(loaded, inputs, says):
    with pytest.raises(ValueError, match=f"VideoCrafter Conditioning {says}"):
        VideoCrafterConditioning.execute(**{**dict(model=loaded[0], positive=tiny.conditioning(1), negative=tiny.conditioning(2), width=64, height=64, frames=3, fps=28), **inputs})


def test_a_file_without_towers_gives_none(loaded):
    assert loaded[1:4] == (None, None, None)


@pytest.mark.parametrize("inputs, says", [
    (dict(positive=[[torch.zeros(1, 77, 768), {}]]), r"'d.safetensors' needs the text encoder another one, 64 wide; 'positive' comes from CLIP-L, as in SD1.5, 768 wide"),
    (dict(negative=[[torch.zeros(1, 77, 2048), {}]]), "'negative' comes from SDXL's, 2048 wide"),
    (dict(image=picture().repeat(2, 1, 1, 1)), "takes one picture in 'image', got 2"),
    (dict(end_image=picture(96, 96)), "got an end_image of 96 x 96 pixels for an image of 160 x 96"),
    (dict(end_image=picture(), loop=True), "Disconnect end_image or switch loop off"),
    (dict(image=torch.full((1, 8, 8, 3), torch.nan)), "NaN or infinite values"), (dict(clip_vision=None), "needs a CLIP_VISION, as of Load CLIP Vision in .clip_vision., got nothing"),
    (dict(vae=None), "needs a VAE, as of Load VAE in 'vae', got nothing"), (dict(image_projector=None), "needs the image_projector of Load DynamiCrafter .* got nothing"),
    (dict(frames=1), "from 2 to 1024 in 'frames', got 1"), (dict(width=0), "from 64 to 4096 in 'width', got 0")])
def test_what_is_refused(inputs, says, loaded):
    with pytest.raises(ValueError, match=f"DynamiCrafter Conditioning.*{says}"):
        conditioned(loaded[4], **inputs)


def test_another_image_tower_is_refused(folder):
    save_file(lvdm_files.file(WIDTH, 48), folder / "d.safetensors")
    projector = DynamiCrafterLoader.execute(dynamicrafter="d.safetensors", version="auto").result[4]
    with pytest.raises(ValueError, match="takes image features that are 48 wide .* this CLIP_VISION gives 32"):
        conditioned(projector)


def test_another_copy_is_read_again(folder, loaded):
    projector = loaded[4]
    function, args = projector.patcher.cached_patcher_init
    x = torch.randn(1, 5, adapter_files.HIDDEN, generator=torch.Generator().manual_seed(1))
    assert torch.equal(function(*args, disable_dynamic=True).model(x), projector.patcher.model(x))
    save_file(lvdm_files.file(WIDTH, 48), folder / "d.safetensors")
    with pytest.raises(ValueError, match="has been replaced by another model since"):
        function(*args)
