"""SparseCtrl against diffusers' SparseControlNetModel, the reading of its files, and through the host's guider beside a motion module."""
import functools
import json
from contextlib import nullcontext
from pathlib import Path

import comfy.context_windows
import comfy.model_base
import comfy.sd
import comfy.utils
import firstframe
import pytest
import torch
from firstframe.attention_patches.frames import FrameBatch
from firstframe.attention_patches.inserted_layers import insert
from firstframe.networks.motion_module_files import motion_module
from firstframe.networks.sparse_control import SparseControl, laid_out
from firstframe.networks.sparse_ctrl import shapes
from firstframe.networks.sparse_ctrl_files import layout_of, names, sparse_control
from firstframe.nodes.sparse_ctrl import SparseCtrlApply
from firstframe.tests import motion_files
from firstframe.tests import sparse_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

from nodes import ControlNetApplyAdvanced

GOLDEN = Path(__file__).parents[1] / "golden"
F, SIDE = 4, 16


@functools.cache
def vae():
    file, = (Path(firstframe.__file__).parent / "demo" / "weights" / "vae").iterdir()
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(file), safe_load=True))


def pictures(n: int, side: int = 8 * SIDE) -> torch.Tensor:
    return torch.rand(n, side, side, 3, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module", params=files.KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def control(kind):
    return sparse_control(files.model(kind), f"{kind}.ckpt")


def applied(control, image, numbers="0", strength=1.0, start=0.0, end=1.0, frames=0, positive=None, negative=None) -> dict:
    """{positive, negative} for tiny.sample."""
    out = SparseCtrlApply.execute(positive or tiny.conditioning(1), negative or tiny.conditioning(2), control, image, numbers, strength, start, end, vae=vae(), frames=frames)
    return dict(zip(("positive", "negative"), out.result))


@pytest.mark.parametrize("clips", [1, 2])
@torch.no_grad()
def test_diffusers_sparse_control_net(kind, clips):
    """Residuals for the same noisy latents (which must not matter), t, text, and pictures on frames 0 and 2."""
    sd, generator = files.model(kind), torch.Generator().manual_seed(4)
    net = sparse_control(sd, "f").control_model
    shown = [1, 0, 2, 0]
    known = torch.rand(2, net.pictures[0].in_channels - 1, *[SIDE if kind == "rgb" else 8 * SIDE] * 2, generator=generator)
    context, t = torch.randn(clips, 7, tiny.CONTEXT, generator=generator).repeat_interleave(F, 0), torch.tensor([500.0])
    hint = torch.zeros(1, len(known[0]), F, *known.shape[2:])
    hint[0, :, 0], hint[0, :, 2] = known
    mask = torch.tensor([1.0, 0, 1, 0]).view(1, 1, F, 1, 1).expand(1, 1, F, *known.shape[2:])
    x = tiny.latents(clips * F, SIDE)
    expected = files.reference(kind, sd)(x.unflatten(0, (clips, F)).transpose(1, 2), t, context, hint.expand(clips, *hint.shape[1:]), conditioning_mask=mask.expand(clips, *mask.shape[1:]))
    found = net(x=x, hint=laid_out(known, shown, clips), timesteps=t.expand(len(x)), context=context, shown=shown)
    assert len(found["output"]) == len(expected.down_block_res_samples) == 12
    for a, b in zip(found["output"] + found["middle"], [*expected.down_block_res_samples, expected.mid_block_res_sample]):
        assert tiny.difference(a, b) <= 1e-5
    other = net(x=x + 1, hint=laid_out(known, shown, clips), timesteps=t.expand(len(x)), context=context, shown=shown)
    assert torch.equal(other["middle"][0], found["middle"][0])


def test_frames_without_a_picture_are_zeros():
    known = torch.randn(2, 3, 4, 4)
    hint = laid_out(known, [0, 2, 0, 1], 2).unflatten(0, (2, 4))
    assert torch.equal(hint[0], hint[1]) and torch.equal(hint[0, 1, :3], known[1]) and torch.equal(hint[0, 3, :3], known[0])
    assert hint[0, [0, 2]].abs().max() == 0 and hint[0, [1, 3], 3].min() == 1


@pytest.mark.parametrize("kind,tensors", [("rgb", 486), ("scribble", 500)])
def test_published_keys_are_all_read(kind, tensors):
    """Shapes of the published files, without their numbers."""
    schema = {k: torch.empty(shape, device="meta") for k, shape in json.loads((GOLDEN / f"sparsectrl_v3_{kind}.json").read_text()).items()}
    assert len(schema) == tensors
    weights = {k.replace(".temporal_transformer.", "."): v for k, v in schema.items() if not k.endswith(".pe")}
    layout = layout_of(weights, "f")
    assert (layout.widths, layout.context, layout.latents) == ((320, 640, 1280, 1280), 768, kind == "rgb")
    own, renamed = shapes(layout), names(layout)
    assert sorted(renamed.values()) == sorted(own) and {theirs: own[ours] for theirs, ours in renamed.items()} == {k: v.shape for k, v in weights.items()}


def test_every_container_gives_the_same_weights(kind, control):
    sd = files.model(kind)
    for other in ({"controlnet": {**sd, "animatediff_config": {"some": "object"}}, "epoch": 3}, {f"module.{k}": v for k, v in sd.items()}, files.as_diffusers(sd)):
        again = sparse_control(other, "f")
        assert again.layout == control.layout and again.length == 32
        assert all(torch.equal(a, b) for a, b in zip(again.control_model.state_dict().values(), control.control_model.state_dict().values()))


def broken(sd: dict, how: str) -> dict:
    first = "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"
    return {
        "lacks": {k: v for k, v in sd.items() if "mid_block.resnets.1.conv2.weight" not in k}, "more": {**sd, "mid_block.motion_modules.0.norm.weight": torch.ones(32)},
        "place": {k: v for k, v in sd.items() if "down_blocks.1.motion_modules.1" not in k},
        "text": {k: v for k, v in sd.items() if "mid_block.attentions.0.transformer_blocks.0.attn2" not in k},
        "wide": {**sd, first: torch.ones(2000)}, "shape": {**sd, "conv_in.weight": torch.ones(32, 9, 3, 3)}, "NaN": {**sd, "conv_in.bias": torch.full((32,), torch.nan)},
        "module": motion_files.module(tiny.model()), "control net": {"controlnet_down_blocks.0.weight": torch.ones(3)}, "empty": {},
    }[how]


@pytest.mark.parametrize("how,says", [
    ("lacks", "lacks mid_block.resnets.1.conv2.weight"), ("more", "has the unknown mid_block.motion_modules.0.norm.weight"), ("place", "at 7 places instead of 8"),
    ("text", "attn2.to_k.weight of shape \\[\\]"), ("wide", "norm.weight of shape \\[2000\\]"), ("shape", "conv_in.weight of shape"), ("NaN", "NaN or infinity in conv_in.bias"),
    ("module", "a motion module. .*animatediff_models"), ("control net", "a ControlNet. .*Load ControlNet Model"), ("empty", "0 tensors")])
def test_other_files_are_refused_by_name(how, says):
    with pytest.raises(ValueError, match=f"Load SparseCtrl expected .* in 'f.ckpt', found .*{says}"):
        sparse_control(broken(files.model("rgb"), how), "f.ckpt")


def test_a_motion_module_loader_names_where_it_belongs(kind):
    with pytest.raises(ValueError, match="found a SparseCtrl model. SparseCtrl models belong into models/controlnet and the node Load SparseCtrl"):
        motion_module({"controlnet": files.model(kind), "epoch": 1}, "f.ckpt")


def test_beside_a_motion_module_it_is_what_its_residuals_are(model, kind, control):
    """The host adds to each half of guidance the same as a control that holds diffusers' numbers."""
    m, z, image = insert(model, motion_module(motion_files.module(model), "m"), "A"), tiny.latents(F, SIDE), pictures(2)
    own = applied(control, image, "0, -1")
    reference = files.reference(kind, files.model(kind))

    class Reference(SparseControl):
        def copy(self):
            return self

        def get_control(self, x, t, cond, batched_number, transformer_options):
            hint = image.movedim(-1, 1) if kind == "scribble" else 0.18215 * vae().encode(image)
            clips, laid = len(x) // F, torch.zeros(1, len(hint[0]), F, *hint.shape[2:])
            laid[0, :, 0], laid[0, :, -1] = hint
            mask = torch.tensor([1.0, 0, 0, 1]).view(1, 1, F, 1, 1).expand(1, 1, F, *hint.shape[2:])
            with torch.no_grad():
                out = reference(x.unflatten(0, (clips, F)).transpose(1, 2), self.model_sampling_current.timestep(t)[:clips], cond["c_crossattn"],
                                laid.expand(clips, *laid.shape[1:]), conditioning_mask=mask.expand(clips, *mask.shape[1:]))
            return {"input": [], "middle": [out.mid_block_res_sample], "output": list(out.down_block_res_samples)}

    theirs = Reference(control.control_model_wrapped, "r", control.layout, 32)
    with_theirs = {name: [[c, {**options, "control": theirs}] for c, options in cond] for name, cond in own.items()}
    expected, plain = tiny.sample(m, z, **with_theirs), tiny.sample(m, z)
    assert tiny.difference(tiny.sample(m, z, **own), expected) <= 2e-5 < 0.01 < tiny.difference(plain, expected)


def test_off_is_exactly_off_and_the_same_seed_the_same_bits(model, control):
    z, image = tiny.latents(F, SIDE), pictures(1)
    plain, full = tiny.sample(model, z), tiny.sample(model, z, **applied(control, image))
    for off in (dict(strength=0.0), dict(start=0.5, end=0.5), dict(end=0.0)):
        assert torch.equal(tiny.sample(model, z, **applied(control, image, **off)), plain)
    assert torch.equal(tiny.sample(model, z, **applied(control, image)), full) and torch.equal(tiny.sample(model, z), plain) and tiny.difference(full, plain) > 0.01
    late = applied(control, image, start=0.9)
    assert torch.equal(tiny.sample(model, z, **late), plain)  # sigma 1.5 lies before


def test_how_the_host_splits_the_batch_does_not_matter(model, control, monkeypatch):
    m, z, own = insert(model, motion_module(motion_files.module(model), "m"), "A"), tiny.latents(F, SIDE), applied(control, pictures(1), "1")
    together = tiny.sample(m, z, **own)
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda self, shape, cond_shapes={}: 0 if shape[0] <= F else 1e30)  # noqa: B006
    assert tiny.difference(tiny.sample(m, z, **own), together) < 1e-5


def test_two_clips_in_one_batch_are_two_clips(model, control):
    z, image = tiny.latents(2 * F, SIDE), pictures(1)
    both = tiny.sample(model, z, **applied(control, image, "-1", frames=F))
    first, plain = tiny.sample(model, z[:F], **applied(control, image, "-1")), tiny.sample(model, z)
    assert tiny.difference(both, plain) > 0.01 and both.shape == plain.shape
    same = tiny.sample(model, torch.cat([z[:F], z[:F]]), **applied(control, image, "-1", frames=F))
    assert same.shape[0] == 2 * F and tiny.difference(same[:F], first) < 1e-5


def test_each_window_sees_the_pictures_of_its_own_frames():
    control = sparse_control(files.model("rgb"), "f").at((0, 5, -1))
    assert control.shown(FrameBatch(2, (0, 1, 2, 3), 12), 3) == [1, 0, 0, 0]
    assert control.shown(FrameBatch(2, (3, 4, 5, 6), 12), 3) == [0, 0, 2, 0] and control.shown(FrameBatch(2, (0, 9, 10, 11), 12), 3) == [1, 0, 0, 3]
    assert control.at(()).shown(FrameBatch(1, (0, 1, 2), 3), 2) == [1, 2, 0]


def test_context_windows_of_the_host(model, control):
    """A clip of 40 frames, more than the model knows. A picture that moves from one window to another changes those two and no others."""
    windows = comfy.context_windows.IndexListContextHandler(
        comfy.context_windows.get_matching_context_schedule("standard_static"), comfy.context_windows.get_matching_fuse_method("flat"), context_length=8, context_overlap=0)
    m = model.clone()
    m.model_options["context_handler"] = windows
    z = tiny.latents(40, 8)
    found = tiny.sample(m, z, **applied(control, pictures(1, 64), "9"))
    moved = tiny.sample(m, z, **applied(control, pictures(1, 64), "17"))
    changed = [(found[i:i + 8] - moved[i:i + 8]).abs().max() > 1e-3 for i in range(0, 40, 8)]
    assert changed == [False, True, True, False, False]
    with pytest.raises(ValueError, match="knows 32 frames, one call would hold 40"):
        tiny.sample(model, z, **applied(control, pictures(1, 64), "9"))


def test_another_control_net_before_and_after(model, control):
    stock, hint = tiny.control_net()
    z, image = tiny.latents(F, SIDE), pictures(1)

    def with_stock(positive, negative):
        return dict(zip(("positive", "negative"), ControlNetApplyAdvanced().apply_controlnet(positive, negative, stock, hint, 1.0, 0.0, 1.0)))

    ours_last = applied(control, image, **with_stock(tiny.conditioning(1), tiny.conditioning(2)))
    stock_last = with_stock(**applied(control, image))
    a, b = tiny.sample(model, z, **ours_last), tiny.sample(model, z, **stock_last)
    assert tiny.difference(a, b) < 1e-5
    for one in (applied(control, image), with_stock(tiny.conditioning(1), tiny.conditioning(2))):
        assert tiny.difference(tiny.sample(model, z, **one), a) > 0.01


def test_the_stock_node_gives_pictures_of_the_first_frames(model, control):
    z, image = tiny.latents(F, SIDE), pictures(2)
    stock = dict(zip(("positive", "negative"), ControlNetApplyAdvanced().apply_controlnet(tiny.conditioning(1), tiny.conditioning(2), control, image, 1.0, 0.0, 1.0, vae=vae())))
    expected = tiny.sample(model, z, **applied(control, image, "0, 1"))
    assert torch.equal(tiny.sample(model, z, **stock), expected) and torch.equal(tiny.sample(model, z, **applied(control, image, "")), expected)


def test_pictures_of_another_size_are_scaled(model, control):
    z = tiny.latents(F, SIDE)
    small = pictures(1, 40)
    scaled = torch.nn.functional.interpolate(small.movedim(-1, 1), size=8 * SIDE, mode="nearest-exact").movedim(1, -1)
    assert torch.equal(tiny.sample(model, z, **applied(control, small)), tiny.sample(model, z, **applied(control, scaled)))


@pytest.mark.parametrize("numbers,image,says", [
    ("0, 1", 1, "got 1 pictures and 2 frame numbers"), ("0", 2, "got 2 pictures and 1 frame numbers"), ("0.5", 1, "needs whole numbers"), ("x", 1, "needs numbers"),
    (str(F), 1, "has a picture for frame 4, and the clip has 4 frames"), (f"-{F + 1}", 1, "has a picture for frame -5"), ("3, -1", 2, "has two pictures for one of the frames 3, -1"),
    ("", F + 1, "has a picture for frame 4")])
def test_pictures_without_a_frame_are_refused(model, control, numbers, image, says):
    with pytest.raises(ValueError, match=f"Apply SparseCtrl {says}"):
        tiny.sample(model, tiny.latents(F, SIDE), **applied(control, pictures(image), numbers, start=0.9))
    assert torch.isfinite(tiny.sample(model, tiny.latents(F, SIDE))).all()


def test_other_models_and_control_nets_are_refused(control, kind):
    with pytest.raises(ValueError, match="'.*ckpt' is for SD1.5-type models with levels of 32-32-32-32 channels .*SDXL model is another"):
        tiny.sample(tiny.model("SDXL"), tiny.latents(F, SIDE), **applied(control, pictures(1)))
    with pytest.raises(ValueError, match="needs the control_net of Load SparseCtrl, got a ControlNet. "):
        applied(tiny.control_net()[0], pictures(1))
    wide = [[torch.zeros(1, 7, 128), {}]]
    with pytest.raises(ValueError, match="got embeddings of width 128 in 'negative', '.*ckpt' reads 64"):
        applied(control, pictures(1), negative=wide)
    call = SparseCtrlApply.execute, (tiny.conditioning(1), tiny.conditioning(2), control, pictures(1), "0", 1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="needs the VAE for 'rgb.ckpt'") if kind == "rgb" else nullcontext():
        call[0](*call[1])


def test_a_clip_has_the_same_bits_in_dynamic_mode(kind):
    sd, z, image = files.model(kind), tiny.latents(2, 8), pictures(1, 64)

    def clip():
        return tiny.sample(tiny.model(), z, **applied(sparse_control(sd, "f"), image))

    expected = clip()
    with dynamic_mode():
        assert torch.equal(clip(), expected) and tiny.difference(tiny.sample(tiny.model(), z), expected) > 0.01


@pytest.mark.parametrize("mode", [nullcontext, dynamic_mode])
def test_a_copy_for_another_device_comes_from_the_file(mode):
    read = []

    def source():
        read.append(1)
        return files.model("scribble")

    with mode():
        control = sparse_control(source, "f").at((1,))
        other = control.deepclone_multigpu(torch.device("cpu:0"), autoregister=True)
        assert len(read) == 2 and other.control_model is not control.control_model and other.numbers == (1,) and other.load_device == torch.device("cpu:0")
        assert other.control_model is other.control_model_wrapped.model and control.get_instance_for_device(torch.device("cpu:0")) is other
        assert control.get_models() == [other.control_model_wrapped, control.control_model_wrapped]


def test_half_precision_is_near(model, control):
    half = tiny.model(dtype=torch.float16)
    z, own = tiny.latents(F, SIDE), applied(control, pictures(1))
    assert tiny.difference(tiny.sample(half, z, **own), tiny.sample(model, z, **own)) < 0.02
