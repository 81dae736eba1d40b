"""Training an I2V-Adapter for a user's files: what is trained is what the nodes compute, a stopped run goes on, bad input is refused in a sentence."""
import random

import pytest
import torch
from firstframe.demo import in_process
from firstframe.demo.train import own_clips, own_training
from firstframe.demo.train.encoded_clips import batch_of
from firstframe.demo.train.i2v_adapter import build
from firstframe.demo.train.own_model import OwnModel
from firstframe.demo.train.own_options import file_and_strength
from firstframe.networks.i2v_adapter import i2v_adapter
from firstframe.networks.motion_module_files import motion_module
from firstframe.nodes.i2v_adapter import I2VAdapterApply
from firstframe.nodes.motion_module import MotionModuleApply
from firstframe.tests import i2v_adapter_files, motion_files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.own_files import conditions, drawn_clips, stops_after_a_step
from safetensors.torch import load_file, save_file

FRAMES = 3


def parts(family: str, version: str, **overrides):
    """(MODEL, motion module, I2V-Adapter, its weights, all random)."""
    model = tiny.model(family, **overrides)
    weights = i2v_adapter_files.i2v_adapter(model)
    return model, motion_module(motion_files.module(model, version), version), i2v_adapter(weights, "a"), weights


def prepared(model, motion, weights):
    own = OwnModel(model, motion, torch.float32)
    adapter, layers = build(own.unet)
    adapter.load_state_dict(weights)
    return own, adapter, layers


@pytest.mark.parametrize("save_memory", [False, True])
@pytest.mark.parametrize("family, version", [("SD1.5", "v1"), ("SD1.5", "v2"), ("SD1.5", "v3"), ("SDXL", "SDXL")])
def test_what_is_trained_is_what_the_nodes_compute(family, version, save_memory):
    model, motion, adapter, weights = parts(family, version)
    z0, eps = tiny.latents(FRAMES, seed=1), tiny.latents(FRAMES, seed=11)
    patched = MotionModuleApply.execute(model, motion, 1.0, 0.0, 1.0).result[0]
    patched = I2VAdapterApply.execute(patched, adapter, {"samples": z0[:1]}, 1.0, 0.0, 1.0).result[0]
    sigma = patched.get_model_object("model_sampling").sigmas[600]
    inside = model.model.latent_format.process_in

    def sampled(m):
        import comfy.sample
        import comfy.samplers
        out = comfy.sample.sample_custom(m, eps, 1.0, comfy.samplers.sampler_object("euler"), torch.stack([sigma, torch.zeros(())]), tiny.conditioning(9), tiny.conditioning(2), z0,
                                         disable_pbar=True, seed=1)
        return inside(out)
    wanted = sampled(patched)

    own, trained, layers = prepared(model, motion, weights)
    a, x = own.abar[600], inside(z0) + sigma * eps
    z = a.sqrt() * x
    z[0] = inside(z0)[0]
    with torch.no_grad(), own.with_adapter(trained, layers, 1, FRAMES, save_memory):
        out = x - sigma * own.predicted(z, torch.tensor([600]), conditions(own, 1))
    assert tiny.difference(out[1:], wanted[1:]) <= 1e-5
    assert tiny.difference(wanted[1:], inside(z0)[1:]) > 0.1


def test_gradients_reach_the_adapter_alone_and_memory_is_saved_without_changing_them():
    model, motion, _, weights = parts("SD1.5", "v1", **tiny.SMALL)
    own, adapter, layers = prepared(model, motion, weights)
    given, t, found = conditions(own, 2), torch.tensor([100, 700]), {}
    for save_memory in (False, True):
        adapter.zero_grad()
        torch.manual_seed(0)
        with own.with_adapter(adapter, layers, 2, FRAMES, save_memory):
            own_training.loss_of(own, tiny.latents(2 * FRAMES), given, t, clean_first=True).backward()
        found[save_memory] = {name: p.grad.clone() for name, p in adapter.named_parameters()}
    torch.testing.assert_close(found[True], found[False])
    assert all(grad.abs().max() > 0 for grad in found[False].values())
    assert all(p.grad is None for p in (*own.base.parameters(), *own.net.parameters()))
    assert not any(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__ for module in own.unet.modules())


def test_clips_of_a_batch_do_not_see_each_other():
    model, motion, _, weights = parts("SD1.5", "v1", **tiny.SMALL)
    own, adapter, layers = prepared(model, motion, weights)
    z, given, t = tiny.latents(2 * FRAMES), conditions(own, 2), torch.tensor([100, 700])
    with torch.no_grad():
        with own.with_adapter(adapter, layers, 2, FRAMES, False):
            both = own.predicted(z, t, given)
        with own.with_adapter(adapter, layers, 1, FRAMES, False):
            second = own.predicted(z[FRAMES:], t[1:], {name: value[1:] for name, value in given.items()})
    assert tiny.difference(both[FRAMES:], second) <= 1e-5


@pytest.mark.parametrize("velocity", [False, True])
def test_the_loss_is_of_noise_or_velocity_in_all_frames_but_the_first(velocity):
    z0 = tiny.latents(2 * FRAMES)

    class Exact:
        abar = torch.linspace(0.99, 0.01, 1000)

        def predicted(self, z, t, conditions):
            a = self.abar[t.repeat_interleave(FRAMES), None, None, None]
            eps = (z - a.sqrt() * z0) / (1 - a).sqrt()
            out = a.sqrt() * eps - (1 - a).sqrt() * z0 if velocity else eps
            assert torch.equal(z[::FRAMES], z0[::FRAMES])
            out[::FRAMES] = 100
            return out
    own = Exact()
    own.velocity = velocity
    assert own_training.loss_of(own, z0, {}, torch.tensor([100, 700]), clean_first=True) < 1e-9
    own.velocity = not velocity
    assert own_training.loss_of(own, z0, {}, torch.tensor([100, 700]), clean_first=True) > 0.1


@pytest.fixture
def folder(tmp_path):
    drawn_clips(tmp_path / "clips")
    return tmp_path


def arguments(folder, out: str = "a.safetensors", **options) -> list[str]:
    given = {"checkpoint": in_process.CHECKPOINT, "vae": in_process.VAE, "motion-module": in_process.MOTION_MODULE, "clips": folder / "clips", "out": folder / out,
             "size": "64x64", "frames": FRAMES, "precision": "float32", **options}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def test_a_folder_of_clips(folder, capsys, monkeypatch):
    import folder_paths
    from firstframe.nodes.i2v_adapter import I2VAdapterLoader
    assert own_clips.main(arguments(folder, "whole.safetensors", steps=3)) == 0
    told = capsys.readouterr().err
    assert "three.webp is left out: it has no caption. Write one into three.txt" in told
    assert "four.mp4 is left out: it cannot be read" in told and "five.webp is left out: it has 2 frames at 8 a second, --frames asks for 3" in told
    assert "2 clips" in told and "3/3" in told and "loss=" in told

    assert own_clips.main(arguments(folder, steps=2)) == 0
    cached = {file: file.stat().st_mtime_ns for file in (folder / "a.safetensors.training" / "cache").iterdir()}
    monkeypatch.setattr(own_training, "ctrl_c", stops_after_a_step(own_training.ctrl_c))
    assert own_clips.main(arguments(folder, steps=9)) == 130
    assert "The same command goes on" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in (folder / "a.safetensors.training" / "cache").iterdir()} == cached
    assert (folder / "a.safetensors.training" / "step_000003.safetensors").read_bytes() == (folder / "a.safetensors").read_bytes()
    whole, resumed = load_file(folder / "whole.safetensors"), load_file(folder / "a.safetensors")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any(value.abs().max() > 0 for key, value in resumed.items() if "to_out_ff" in key)

    assert "begun with --average 0.0, now it is 0.5" in refused(folder, average=0.5)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "i2v_adapter", ([str(folder)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    adapter = I2VAdapterLoader.execute("a.safetensors").result[0]
    model = in_process.load()[0]
    assert model is not I2VAdapterApply.execute(model, adapter, {"samples": tiny.latents(1)}, 1.0, 0.0, 1.0).result[0]


def test_a_lora_is_on_the_model_a_changed_caption_is_encoded_anew_and_bfloat16_learns(folder):
    from firstframe.attention_patches.unet import named_blocks
    own_clips.main(arguments(folder, steps=1, lr=0.0, lora=f"{in_process.NIGHT_LORA}:0.5"))
    cache = folder / "a.safetensors.training" / "cache"
    before = set(cache.iterdir())
    plain = {f"{place}.attn1.to_q_ff.weight": block.attn1.to_q.weight for place, block in named_blocks(in_process.load()[0].model.diffusion_model).items()}
    begun = load_file(folder / "a.safetensors")
    assert any((begun[key].float() - plain[key]).abs().max() > 1e-3 for key in plain)
    (folder / "clips" / "one.txt").write_text("something else")
    own_clips.main(arguments(folder, steps=2, lora=f"{in_process.NIGHT_LORA}:0.5", precision="bfloat16"))
    learned = load_file(folder / "a.safetensors")
    assert all(value.isfinite().all() for value in learned.values()) and any(not torch.equal(learned[key], begun[key]) for key in begun if "to_out_ff" in key)
    assert [file.name.split("-")[0] for file in set(cache.iterdir()) - before] == ["one.webp"]


def test_a_batch_of_clips(folder):
    class Long:
        length, drawn = 5, []

        def read(self, start, n):
            self.drawn.append(start)
            return torch.full((n, 4, 8, 8), float(start)).half()

        def conditions(self):
            return {"c_crossattn": torch.ones(1, 14, 8).half()}

    rng, clip, seen = random.Random(0), Long(), []
    for _ in range(20):
        z, given = batch_of([clip], {"c_crossattn": torch.zeros(1, 7, 8).half()}, 2, 3, 0.3, rng)
        assert z.shape == (6, 4, 8, 8) and z.dtype == torch.float32 and given["c_crossattn"].shape[0] == 2
        seen += [float(one.mean()) for one in given["c_crossattn"]]
    assert set(clip.drawn) == {0, 1, 2} and set(seen) == {0.0, 1.0} and 4 <= seen.count(0.0) <= 20


def test_it_begins_with_an_adapter(folder):
    weights = {key: value.half() for key, value in i2v_adapter_files.i2v_adapter(in_process.load()[0]).items()}
    save_file(weights, folder / "first.safetensors")
    own_clips.main(arguments(folder, steps=1, lr=0.0, **{"begin-with": folder / "first.safetensors"}))
    found = load_file(folder / "a.safetensors")
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in found)


def refused(folder, **options) -> str:
    with pytest.raises(SystemExit) as caught:
        own_clips.main(arguments(folder, **options))
    return str(caught.value)


def test_bad_input_is_refused(folder, capsys):
    (folder / "empty").mkdir()
    assert "There is no folder" in refused(folder, clips=folder / "nowhere")
    assert "No clip with a caption" in refused(folder, clips=folder / "empty")
    assert "There is no file" in refused(folder, checkpoint=folder / "nothing.safetensors")
    assert "ends in .safetensors" in refused(folder, out="a.pt")
    assert "cannot read" in refused(folder, checkpoint=folder / "clips" / "four.mp4")
    assert "a whole SD1.5 or SDXL checkpoint" in refused(folder, checkpoint=in_process.MOTION_MODULE)
    assert "knows 16 frames, --frames asks for 17" in refused(folder, frames=17)
    assert "found a checkpoint" in refused(folder, **{"motion-module": in_process.CHECKPOINT})
    assert "None of the 4 clips has 6 frames" in refused(folder, frames=6)
    save_file(motion_files.module(tiny.model("SD1.5"), "v3"), folder / "narrow.safetensors")
    assert "does not fit this FirstFrameDemo model" in refused(folder, **{"motion-module": folder / "narrow.safetensors"})
    assert "nothing in the LoRA" in refused(folder, lora=in_process.MOTION_LORA)
    assert "is for another kind" in refused(folder, **{"begin-with": adapter_of_another_kind(folder)})
    capsys.readouterr()
    for option, value, said in (("size", "100x64", "multiples of 8"), ("frames", 1, "from 2 on"), ("fps", -1, "from 0 on"), ("lr", "nan", "from 0 on")):
        refused(folder, **{option: value})
        assert said in capsys.readouterr().err


def adapter_of_another_kind(folder):
    save_file(i2v_adapter_files.i2v_adapter(tiny.model("SD1.5")), folder / "other.safetensors")
    return folder / "other.safetensors"


@pytest.mark.parametrize("text, wanted", [("a.safetensors", ("a.safetensors", 1.0)), ("a.safetensors:0.5", ("a.safetensors", 0.5)), ("b/a.safetensors:-1", ("b/a.safetensors", -1.0)),
                                          (r"C:\loras\a.safetensors", (r"C:\loras\a.safetensors", 1.0))])
def test_a_lora_and_its_strength(text, wanted):
    file, strength = file_and_strength(text)
    assert (str(file), strength) == wanted


def test_an_inpainting_model_is_refused(folder):
    weights = load_file(in_process.CHECKPOINT)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    weights[first] = torch.cat([weights[first], torch.zeros_like(weights[first])[:, :1].repeat(1, 5, 1, 1)], 1)
    save_file(weights, folder / "inpainting.safetensors")
    assert "9 input channels" in refused(folder, checkpoint=folder / "inpainting.safetensors")


def test_a_checkpoint_without_a_vae_asks_for_one(folder):
    words = arguments(folder)
    at = words.index("--vae")
    with pytest.raises(SystemExit) as caught:
        own_clips.main(words[:at] + words[at + 2:])
    assert "Name one with --vae" in str(caught.value)
