"""CLIPScore of the host's own CLIP and CLIP_VISION: which texts can be compared with pictures at all, and the number."""
from contextlib import nullcontext
from pathlib import Path

import comfy.clip_vision
import comfy.sd
import comfy.utils
import firstframe
import pytest
import torch
from comfy.sd1_clip import SDTokenizer
from comfy.supported_models_base import ClipTarget
from firstframe.demo import comfy_support
from firstframe.networks.clip_score import ClipScore, is_projection
from firstframe.tests import adapter_files
from firstframe.tests import reward_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode
from safetensors.torch import load_file, save_file

WHO = "Node"
MODES = {"ordinary": nullcontext, "dynamic": dynamic_mode}
WEIGHTS = Path(firstframe.__file__).parent / "demo" / "weights"


@pytest.fixture(params=MODES)
def mode(request):
    """As the host's nodes run: weights that are made in inference mode have no history."""
    with MODES[request.param](), torch.inference_mode():
        yield request.param


def demo_clip():
    """SD1.5's kind of checkpoint, by the stock loader."""
    return comfy.sd.load_checkpoint_guess_config(str(WEIGHTS / "checkpoints" / "firstframe_demo.safetensors"), output_vae=False, output_model=False)[1]


def demo_projection() -> torch.Tensor:
    return load_file(WEIGHTS / "loras" / "firstframe_demo_text_projection.safetensors")["text_encoders.clip_l.transformer.text_projection.set_weight"]


def projected(clip):
    """With the demo's projection by the stock LoRA loader."""
    lora = comfy.utils.load_torch_file(str(WEIGHTS / "loras" / "firstframe_demo_text_projection.safetensors"), safe_load=True)
    return comfy.sd.load_lora_for_models(None, clip, lora, 0.0, 1.0)[1]


def vision():
    return comfy.clip_vision.load(str(WEIGHTS / "clip_vision" / "firstframe_demo_vision.safetensors"))


def other_clip(path, weights: dict):
    """The demo's encoder with `weights` beside its own, from a file, as the host's loader of text encoders leaves it; that one knows no small CLIPs."""
    prefix = "cond_stage_model.transformer."
    checkpoint = comfy.utils.load_torch_file(str(WEIGHTS / "checkpoints" / "firstframe_demo.safetensors"), safe_load=True)
    sd = {k.removeprefix(prefix): v for k, v in checkpoint.items() if k.startswith(prefix)} | weights
    save_file(sd, path) if path.suffix == ".safetensors" else torch.save(sd, path)
    clip = comfy.sd.CLIP(ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy_support.DemoCLIP), state_dict=[sd])
    clip.patcher.cached_patcher_init = (comfy.sd.load_clip_model_patcher, ([str(path)], None))
    return clip


def test_a_checkpoint_without_projection_is_refused(mode):
    with pytest.raises(ValueError, match="CLIPScore got a CLIP in 'clip' whose clip_l has no text projection .* Connect Load CLIP with a file"):
        ClipScore(demo_clip(), vision())


def test_numbers_that_nobody_loaded_are_refused():
    """Whatever the memory holds that the host leaves as it was."""
    clip = demo_clip()
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.data.copy_(torch.randn(64, 64) / 8)
    with pytest.raises(ValueError, match="no text projection"):
        ClipScore(clip, vision())


@pytest.mark.parametrize("loader", [None, (print, ("clip.safetensors",)), (print, ({},), 1)])
def test_one_of_another_packs_loader_is_taken_in_dynamic_mode_alone(tmp_path, loader):
    for mode in MODES:
        with MODES[mode]():
            clip = other_clip(tmp_path / "clip.safetensors", {"text_projection.weight": demo_projection()})
            clip.patcher.cached_patcher_init = loader
            with nullcontext() if mode == "dynamic" else pytest.raises(ValueError, match="no text projection that is known to come from a file"):
                ClipScore(clip, vision())


@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_a_text_encoder_that_has_it_is_taken(mode, tmp_path, form):
    clip = other_clip(tmp_path / f"clip.{form}", {"text_projection.weight": demo_projection()})
    found = ClipScore(clip, vision()).scores(files.pictures(), "a red circle", WHO)
    assert tiny.difference(found, ClipScore(projected(demo_clip()), vision()).scores(files.pictures(), "a red circle", WHO)) <= 1e-5


@pytest.mark.parametrize("weights", [{}, {"text_projection.weight": torch.ones(32, 32)}])
def test_one_that_lacks_it_is_refused(tmp_path, weights):
    clip = other_clip(tmp_path / "clip.safetensors", {})
    save_file({"text_model.other": torch.ones(2), **weights}, tmp_path / "clip.safetensors")
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.data.fill_(0.1)
    with pytest.raises(ValueError, match="no text projection"):
        ClipScore(clip, vision())


@pytest.mark.parametrize("key, part, checkpoint, taken", [
    ("text_projection.weight", "clip_l", False, True), ("text_projection", "clip_g", False, True), ("text_model.encoder.x", "clip_l", False, False),
    ("text_encoders.clip_l.transformer.text_projection.weight", "clip_l", True, True), ("text_encoders.clip_g.transformer.text_projection.weight", "clip_l", True, False),
    ("conditioner.embedders.1.model.text_projection", "clip_g", True, True), ("conditioner.embedders.1.model.text_projection", "clip_l", True, False),
    ("cond_stage_model.model.text_projection", "clip_h", True, True), ("cond_stage_model.transformer.text_projection.weight", "clip_l", True, False)])
def test_names_of_the_projection(key, part, checkpoint, taken):
    assert is_projection(key, part, checkpoint) == taken


def test_what_the_host_takes_of_a_checkpoint():
    """Of SD1.5's and SDXL's it takes no projection for clip_l, whatever is in the file."""
    import comfy.supported_models as known
    w, g = torch.ones(2, 2), "conditioner.embedders.1.model."
    for family, sd, part, taken in ((known.SD15, {"cond_stage_model.transformer.text_projection.weight": w}, "clip_l", False),
                                    (known.SDXL, {"conditioner.embedders.0.transformer.text_projection.weight": w, f"{g}text_projection": w}, "clip_l", False),
                                    (known.SDXL, {"conditioner.embedders.0.transformer.text_projection.weight": w, f"{g}text_projection": w}, "clip_g", True),
                                    (known.SDXLRefiner, {"conditioner.embedders.0.model.text_projection": w}, "clip_g", True),
                                    (known.SD20, {"cond_stage_model.model.text_projection": w}, "clip_h", True)):
        kept = family.process_clip_state_dict(family, dict(sd))
        assert (f"{part}.transformer.text_projection.weight" in kept) == taken == any(is_projection(key, part, True) for key in sd), family


@torch.no_grad()
def test_the_number(mode):
    """Against the towers themselves, called apart from the host's CLIP object."""
    clip, see = projected(demo_clip()), vision()
    images, prompt = files.pictures(4, 200, 150), "a red (circle:1.2)"
    found = ClipScore(clip, see).scores(images, prompt, WHO)
    ids = [t for t, _ in SDTokenizer().tokenize_with_weights(prompt)[0]]
    text = clip.cond_stage_model.clip_l.transformer.text_model(torch.tensor([ids]), num_tokens=[ids.index(49407) + 1])[2]
    text = text @ demo_projection().float().T
    pictures = torch.cat([see.encode_image(i[None])["image_embeds"] for i in images])
    assert tiny.difference(found, 100 * torch.cosine_similarity(text, pictures)) <= 1e-5
    assert found.dtype == torch.float32 and len(set(found.tolist())) == 4 and found.abs().max() <= 100


def test_clip_skip_and_earlier_calls_do_not_count(mode):
    images, clip = files.pictures(), projected(demo_clip())
    expected = ClipScore(clip, vision()).scores(images, files.PROMPT, WHO)
    skipped = clip.clone()
    skipped.clip_layer(-2)
    before = skipped.encode_from_tokens(skipped.tokenize("blue"), return_pooled=True)
    assert torch.equal(ClipScore(skipped, vision()).scores(images, files.PROMPT, WHO), expected)
    after = skipped.encode_from_tokens(skipped.tokenize("blue"), return_pooled=True)
    assert all(torch.equal(a, b) for a, b in zip(before, after)), "the CLIP was left changed"
    assert torch.equal(torch.cat([ClipScore(clip, vision()).scores(i[None], files.PROMPT, WHO) for i in images]), expected)
    assert torch.isfinite(ClipScore(clip, vision()).scores(images, "blue red " * 90, WHO)).all()


def test_the_demos_pair_knows_its_pictures():
    from PIL import Image
    image = Image.open(Path(firstframe.__file__).parent / "demo" / "example.png").convert("RGB")
    picture = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, *image.size[::-1], 3) / 255
    reward = ClipScore(projected(demo_clip()), vision())
    scores = {prompt: reward.scores(picture, prompt, WHO).item() for prompt in ("a red circle on a blue background", "a green square on a yellow background")}
    assert max(scores, key=scores.get) == "a red circle on a blue background", scores


def test_pairs_that_do_not_belong_together_are_refused():
    clip = projected(demo_clip())
    with pytest.raises(ValueError, match=r"needs a CLIP and a CLIP_VISION of one pair: in 'clip' there is clip_l, 64 wide; a picture's embedding is 48 wide. Load ViT-L/14 for clip_l"):
        ClipScore(clip, adapter_files.clip_vision())
    with pytest.raises(ValueError, match="CLIPScore got nothing in 'clip': this checkpoint has no CLIP. Connect Load CLIP"):
        ClipScore(None, vision())
    siglip = adapter_files.clip_vision(model_type="siglip_vision_model")
    del siglip.model.visual_projection
    siglip.model.visual_projection = lambda a: a
    with pytest.raises(ValueError, match="needs the image tower of a CLIP in 'clip_vision', got a siglip_vision_model. Load"):
        ClipScore(clip, siglip)
