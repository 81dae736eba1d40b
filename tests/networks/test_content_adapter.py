"""IP-Adapter files: their forms, what is refused, both of the host's memory modes; and the tokens of pictures, with a small CLIP of the host's."""
from contextlib import nullcontext

import comfy.model_management
import pytest
import torch
from firstframe.attention_patches.dual_cross import patch
from firstframe.networks.content_adapter import content_adapter, image_tokens
from firstframe.networks.motion_module_files import motion_module
from firstframe.networks.patcher import another
from firstframe.tests import adapter_files as files
from firstframe.tests import i2v_adapter_files, motion_files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

WHO = "Apply Content-Adapter"
MODES = {"ordinary": nullcontext, "dynamic": dynamic_mode}
SMALL = tiny.model(**tiny.SMALL)
KINDS = ("plain", "plus", "full")


def tensors(adapter) -> dict:
    return {f"{part}.{k}": v for part in ("projection", "patcher") for k, v in getattr(adapter, part).model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_a_file_is_the_same_adapter(kind):
    sd = files.adapter(SMALL, kind)
    read = content_adapter({**sd, "settings": {"some": "object"}}, "f")
    renamed = {k.replace("ip_adapter.", "adapter_modules."): v for k, v in sd.items()}
    assert read.width == tiny.CONTEXT and read.features == ("image_embeds" if kind == "plain" else "penultimate_hidden_states")
    for form in (renamed, files.nested(sd), files.nested(sd, "adapter_modules")):
        again = content_adapter(form, "f")
        assert (again.size, again.layout) == (read.size, read.layout)
        for (name, a), (other, b) in zip(tensors(again).items(), tensors(read).items()):
            assert name == other and torch.equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_the_file_arrives(kind):
    sd = files.adapter(SMALL, kind)
    for form in (sd, files.nested(sd, "adapter_modules")):
        loaded = tensors(content_adapter(form, "f"))
        assert len(loaded) == len(sd)
        for key, value in sd.items():
            assert torch.equal(loaded[key.replace("image_proj.", "projection.").replace("ip_adapter.", "patcher.")], value)


def broken(kind):
    plain, plus, full = (files.adapter(SMALL, kind) for kind in KINDS)
    without = {"lacks one": "ip_adapter.5.to_v_ip.weight", "lacks a key": "ip_adapter.5.to_k_ip.weight", "no norm": "image_proj.norm.weight", "no projection": "image_proj.proj.weight"}
    if kind in without:
        return {k: v for k, v in plain.items() if k != without[kind]}
    changed = {"shape": ("ip_adapter.3.to_v_ip.weight", torch.zeros(32, 63)), "another width": ("ip_adapter.3.to_k_ip.weight", torch.zeros(32, 60)),
               "odd tokens": ("image_proj.proj.weight", torch.zeros(4 * 64 + 3, files.PROJECTED)), "one axis": ("ip_adapter.1.to_k_ip.weight", torch.zeros(32)),
               "no rows": ("image_proj.norm.weight", torch.zeros(0)), "NaN": ("image_proj.norm.weight", torch.full((64,), torch.nan)),
               "even": ("ip_adapter.2.to_k_ip.weight", torch.zeros(32, 64)), "more": ("image_proj.other", torch.zeros(3))}
    if kind in changed:
        return plain | dict([changed[kind]])
    if kind == "far layer":
        return plus | {k.replace("layers.3", "layers.99999"): v for k, v in plus.items() if "layers.3." in k}
    if kind == "no layer":
        return {k: v for k, v in plus.items() if "layers." not in k}
    if kind == "heads":
        return files.random({**{k: tuple(v.shape) for k, v in plus.items()}, **{f"image_proj.{k}": v for k, v in files.plus(64, files.HIDDEN, inner=96).items()}})
    if kind == "many tokens":
        return plus | {"image_proj.latents": torch.zeros(1, 1025, 64)}
    if kind == "FaceID":
        return {k.replace("image_proj.proj.3", "image_proj.norm"): v for k, v in full.items()} | {"ip_adapter.0.to_q_lora.down.weight": torch.zeros(4, 32)}
    if kind == "FaceID portrait":
        return {k.replace("image_proj.proj.3", "image_proj.norm"): v for k, v in full.items()}
    if kind == "projection alone":
        return {k: v for k, v in plain.items() if k.startswith("image_proj.")}
    if kind == "layers alone":
        return {k: v for k, v in plain.items() if not k.startswith("image_proj.")}
    return {"empty": {}, "motion module": motion_files.module(SMALL), "lora": motion_files.lora(SMALL), "I2V-Adapter": i2v_adapter_files.i2v_adapter(SMALL),
            "list": {"image_proj": [1], "ip_adapter": None}}[kind]


@pytest.mark.parametrize("kind, says", [
    ("lacks one", "lacks ip_adapter.5.to_v_ip.weight"), ("lacks a key", "no ip_adapter.5.to_k_ip.weight"), ("no norm", "no image_proj.norm.weight"),
    ("no projection", "no image_proj.proj.weight"),
    ("shape", r"ip_adapter.3.to_v_ip.weight of shape \[32, 63\] instead of \[32, 64\]"), ("another width", r"ip_adapter.3.to_k_ip.weight of shape \[32, 60\]"),
    ("odd tokens", r"image_proj.proj.weight of shape \[259, 48\] instead of \[256, 48\]"), ("one axis", r"ip_adapter.1.to_k_ip.weight of shape \[32\]. Expected 2 axes"),
    ("no rows", r"image_proj.norm.weight of shape \[0\]"), ("NaN", "NaN or infinity in image_proj.norm.weight"), ("even", "no ip_adapter.15"), ("more", "has the unknown image_proj.other"),
    ("far layer", "has the unknown image_proj.layers.99999"), ("no layer", "no image_proj.layers.0.0.to_q.weight"),
    ("many tokens", "one that makes 1025 tokens of a picture. Expected at most 1024"),
    ("heads", "with 96 rows. Expected a multiple of 64"),
    ("FaceID", "FaceID .it needs a face recogniser.. That family is not supported"), ("FaceID portrait", "no image_proj.proj.weight"), ("projection alone", "no ip_adapter.1.to_k_ip.weight"),
    ("layers alone", "one without an image projection"), ("empty", "0 tensors"), ("list", "0 tensors"),
    ("motion module", "a motion module. Motion modules belong into models/animatediff_models"),
    ("lora", "a motion LoRA"), ("I2V-Adapter", "an I2V-Adapter. I2V-Adapters belong into models/i2v_adapter and the node Load I2V-Adapter")])
def test_other_files_are_refused_by_name(kind, says):
    with pytest.raises(ValueError, match=f"Load Content-Adapter expected an IP-Adapter.* in 'f.bin', found .*{says}"):
        content_adapter(broken(kind), "f.bin")


@pytest.mark.parametrize("form", [lambda sd: sd, files.nested])
def test_in_the_folder_of_motion_modules_it_is_named(form):
    with pytest.raises(ValueError, match="found an IP-Adapter. IP-Adapters belong into models/ipadapter and the node Load Content-Adapter"):
        motion_module(form(files.adapter(SMALL)), "f")


# in the host's memory modes

def clip(sd, kind="plain", dtype=torch.float32, **options):
    model, adapter = tiny.model(dtype=dtype, **tiny.SMALL), content_adapter(sd, "f")
    return tiny.sample(patch(model, adapter, image_tokens(adapter, files.clip_vision(), files.pictures(), WHO), WHO, **options), tiny.latents(2, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_has_the_same_bits_in_dynamic_mode(kind):
    sd = files.adapter(SMALL, kind)
    expected = clip(sd)
    with dynamic_mode():
        assert torch.equal(clip(sd), expected) and torch.equal(clip(files.nested(sd)), expected)
        assert tiny.difference(tiny.sample(tiny.model(**tiny.SMALL), tiny.latents(2, 8)), expected) > 0.003


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_files_of_every_precision(mode, dtype):
    sd = files.adapter(SMALL, "plus")
    expected = clip({k: v.to(dtype).float() for k, v in sd.items()})
    with MODES[mode]():
        assert tiny.difference(clip({k: v.to(dtype) for k, v in sd.items()}), expected) <= 1e-5


def test_a_model_in_half_precision():
    sd = files.adapter(SMALL, "plus")
    assert tiny.difference(clip(sd, dtype=torch.float16), clip(sd)) < 0.02


def test_low_vram_gives_the_same_bits(monkeypatch):
    """No weight is loaded: each is fetched when its layer runs."""
    sd = files.adapter(SMALL, "plus")
    expected = clip(sd)
    comfy.model_management.unload_all_models()
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NO_VRAM)
    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)  # on a CPU the host sees no need to save memory
    assert torch.equal(clip(sd), expected)
    comfy.model_management.unload_all_models()


@pytest.mark.parametrize("mode", MODES)
def test_every_further_copy_comes_from_the_source(mode):
    sd, read = files.adapter(SMALL, "plus"), []

    def source():
        read.append(1)
        return sd

    with MODES[mode]():
        adapter = content_adapter(source, "f")
        assert len(read) == 1
        for patcher in (adapter.projection, adapter.patcher):
            copies = [another(patcher), patcher.deepclone_multigpu(new_load_device=torch.device("cpu"))] + ([patcher.get_non_dynamic_delegate()] if mode == "dynamic" else [])
            for copy in copies:
                assert copy.model is not patcher.model
                for (name, a), (other, b) in zip(copy.model.state_dict().items(), patcher.model.state_dict().items()):
                    assert name == other and torch.equal(a, b)
        assert len(read) == 1 + 2 * len(copies)


def test_a_deep_clone_runs_its_own_layers():
    adapter = content_adapter(lambda: files.adapter(SMALL), "f")
    m = patch(tiny.model(**tiny.SMALL), adapter, image_tokens(adapter, files.clip_vision(), files.pictures(), WHO), WHO)
    there, z = m.deepclone_multigpu(torch.device("cpu")), tiny.latents(2, 8)
    expected = tiny.sample(m, z)
    assert torch.equal(tiny.sample(there, z), expected)
    (mine,), = (models for key, models in there.additional_models.items() if key.startswith("firstframe"))
    comfy.model_management.unload_model_and_clones(mine)
    with torch.no_grad():
        for p in mine.model.parameters():
            p.zero_()
    assert torch.equal(tiny.sample(there, z), tiny.sample(tiny.model(**tiny.SMALL), z)) and torch.equal(tiny.sample(m, z), expected)


def test_a_source_that_has_been_replaced_is_named():
    sources = [files.adapter(SMALL), files.adapter(SMALL, "plus")]
    adapter = content_adapter(lambda: sources.pop(0), "f.bin")
    with pytest.raises(ValueError, match="'f.bin', which has been replaced by an IP-Adapter of another size"):
        another(adapter.patcher)


# tokens

@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_pictures_and_of_none(kind):
    """The host's CLIP preprocesses and encodes; no picture is a zero embedding (plain), or a picture of zeros after normalisation."""
    adapter, clip, pictures = content_adapter(files.adapter(SMALL, kind), "f"), files.clip_vision(), files.pictures(3)
    shown, none = image_tokens(adapter, clip, pictures, WHO)
    project = adapter.projection.model
    if kind == "plain":
        expected, blank = [clip.encode_image(p[None])["image_embeds"] for p in pictures], torch.zeros(1, files.PROJECTED)
    else:
        expected = [clip.encode_image(p[None])["penultimate_hidden_states"] for p in pictures]
        blank = clip.model(pixel_values=torch.zeros(1, 3, files.SIDE, files.SIDE), intermediate_output=-2)[1]
    assert shown.shape == (3, {"plain": 4, "plus": 16, "full": 5}[kind], tiny.CONTEXT)
    assert tiny.difference(shown, torch.cat([project(e) for e in expected])) <= 1e-5
    assert none.shape == shown[:1].shape and tiny.difference(none, project(blank)) <= 1e-5 and clip.image_mean != [0.0, 0.0, 0.0]
    assert tiny.difference(shown[:1], shown[1:2]) > 1e-3


def test_many_pictures_are_encoded_in_parts():
    adapter, clip, counts = content_adapter(files.adapter(SMALL, "plus"), "f"), files.clip_vision(), []
    watch = clip.model.register_forward_pre_hook(lambda module, args, kwargs: counts.append(len(kwargs["pixel_values"])), with_kwargs=True)
    shown, _ = image_tokens(adapter, clip, files.pictures(18), WHO)
    watch.remove()
    assert counts == [16, 2, 1] and len(shown) == 18


@pytest.mark.parametrize("kind, said", [("plain", "48 wide .*gives 40"), ("plus", "32 wide .*gives 16"), ("full", "32 wide .*gives 16")])
def test_a_clip_of_another_width_is_named(kind, said):
    other = files.clip_vision(hidden_size=16, projection_dim=40)
    with pytest.raises(ValueError, match=f"{WHO}: 'f' takes image features that are {said}.*Load CLIP Vision"):
        image_tokens(content_adapter(files.adapter(SMALL, kind), "f"), other, files.pictures(), WHO)
