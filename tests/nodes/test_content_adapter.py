"""The nodes of IP-Adapters: what they take, and what they say about what they do not."""
import firstframe.nodes.content_adapter as nodes
import pytest
import torch
from firstframe.networks.content_adapter import content_adapter
from firstframe.nodes.content_adapter import ContentAdapterApply, ContentAdapterLoader
from firstframe.tests import adapter_files as files
from firstframe.tests import tiny_models as tiny
from safetensors.torch import save_file

MODEL = tiny.model(**tiny.SMALL)


def apply(**inputs):
    good = dict(model=MODEL, content_adapter=content_adapter(files.adapter(MODEL), "f"), clip_vision=files.clip_vision(), image=files.pictures(), weight=1.0,
                start_percent=0.0, end_percent=1.0)
    return ContentAdapterApply.execute(**{**good, **inputs}).result[0]


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_a_file_of_the_folder_is_read(form, tmp_path, monkeypatch):
    sd, name = files.adapter(MODEL, "plus"), f"adapter.{form}"
    save_file(sd, tmp_path / name) if form == "safetensors" else torch.save(files.nested(sd), tmp_path / name)
    monkeypatch.setitem(nodes.folder_paths.folder_names_and_paths, nodes.FOLDER, ([str(tmp_path)], {f".{form}"}))
    adapter = ContentAdapterLoader.execute(content_adapter=name).result[0]
    assert adapter.name == name and adapter.size.tokens == 16
    z = tiny.latents(2)
    direct = content_adapter(sd, "f")
    assert torch.equal(tiny.sample(apply(content_adapter=adapter), z), tiny.sample(apply(content_adapter=direct), z))
    with pytest.raises(ValueError, match="Load Content-Adapter knows no .*'other'"):
        ContentAdapterLoader.execute(content_adapter="other")
    with pytest.raises(ValueError, match="Load Content-Adapter knows no .*'other'"):
        ContentAdapterLoader.execute(content_adapter=name, image_projection="other")


def test_the_projection_of_another_file(tmp_path, monkeypatch):
    one, two = (files.adapter(MODEL, "plus", seed) for seed in (0, 1))
    for name, sd in (("one", one), ("two", two)):
        save_file(sd, tmp_path / f"{name}.safetensors")
    monkeypatch.setitem(nodes.folder_paths.folder_names_and_paths, nodes.FOLDER, ([str(tmp_path)], {".safetensors"}))
    found, z = ContentAdapterLoader.execute(content_adapter="one.safetensors", image_projection="two.safetensors").result[0], tiny.latents(2)
    clip = tiny.sample(apply(content_adapter=found), z)
    assert torch.equal(clip, tiny.sample(apply(content_adapter=content_adapter(one | {k: v for k, v in two.items() if k.startswith("image_proj.")}, "f")), z))
    assert tiny.difference(clip, tiny.sample(apply(content_adapter=content_adapter(one, "f")), z)) > 1e-3


def test_the_picture_and_each_setting_count():
    z = tiny.latents(3)
    whole = tiny.sample(apply(), z)
    for inputs in (dict(image=files.pictures(seed=1)), dict(image=files.pictures(3)), dict(weight=0.5), dict(mask=torch.rand(1, 64, 64)), dict(weights_per_frame="1, 0.5, 0")):
        assert tiny.difference(tiny.sample(apply(**inputs), z), whole) > 1e-4
    assert tiny.difference(tiny.sample(apply(mask=torch.ones(64, 64), weights_per_frame="1 1\n1"), z), whole) <= 1e-5
    assert torch.equal(tiny.sample(apply(weight=0.0), z), tiny.sample(MODEL, z))
    two = apply(frames=2, weights_per_frame="1, 0")
    assert torch.equal(tiny.sample(two, tiny.latents(4)), tiny.sample(apply(weights_per_frame="1, 0, 1, 0"), tiny.latents(4)))


@pytest.mark.parametrize("inputs, said", [
    (dict(weights_per_frame="1, half"), "needs numbers from -10 to 10 with commas between them in 'weights_per_frame', such as .*, got '1, half'"),
    (dict(weights_per_frame="nan"), "got 'nan'"), (dict(weights_per_frame="11"), "got '11'"), (dict(weights_per_frame="-11"), "got '-11'"),
    (dict(image=torch.rand(4, 4, 3)), r"needs pictures \[frames, height, width, 3\] in 'image', got one of \[4, 4, 3\]"), (dict(image=torch.rand(1, 4, 4, 1)), r"got one of \[1, 4, 4, 1\]"),
    (dict(image=torch.rand(0, 4, 4, 3)), r"got one of \[0, 4, 4, 3\]"), (dict(image=torch.full((1, 4, 4, 3), torch.nan)), "got a picture with NaN or infinite values"),
    (dict(mask=torch.zeros(0, 4, 4)), "got an empty mask"), (dict(clip_vision=None), "needs a CLIP_VISION, as of Load CLIP Vision in 'clip_vision', got nothing"),
    (dict(content_adapter="text"), "needs the content_adapter of Load Content-Adapter"), (dict(model=tiny.model("SDXL")), "'f' does not fit this SDXL model"),
    (dict(clip_vision=files.clip_vision(projection_dim=40)), "takes image features that are 48 wide")])
def test_what_it_does_not_take_is_named(inputs, said):
    with pytest.raises(ValueError, match=f"^Apply Content-Adapter.*{said}"):
        apply(**inputs)
