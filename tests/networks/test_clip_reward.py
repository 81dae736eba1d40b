"""CLIP rewards (PickScore, HPSv2) against transformers' CLIPModel with the same weights, under both namings, in both of the host's memory modes; and what is refused."""
import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import comfy.model_management
import pytest
import torch
from firstframe.networks.clip_reward import ClipPair, renamed, sizes
from firstframe.networks.files import Reader
from firstframe.networks.patcher import another
from firstframe.networks.reward import pixels, shapes
from firstframe.networks.reward_files import reward_model
from firstframe.tests import reward_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

WHO = "Node"
MODES = {"ordinary": nullcontext, "dynamic": dynamic_mode}
NAMINGS = {"transformers": lambda sd: sd, "OpenCLIP": files.open_clip}
SD = files.clip()


@pytest.fixture(scope="module")
def images():
    return files.pictures()


@pytest.fixture(scope="module")
def expected(images):
    return theirs(SD, images, files.PROMPT)


@torch.no_grad()
def theirs(sd, images, prompt, padding=49407) -> torch.Tensor:
    """As PickScore's own script: transformers' model and processing."""
    import comfy.sd1_clip
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig
    text = {**files.TEXT_TOWER, "vocab_size": 49408, "projection_dim": 64, "bos_token_id": 49406}
    model = CLIPModel(CLIPConfig(text_config=CLIPTextConfig(**text).to_dict(), vision_config=CLIPVisionConfig(**files.VISION_TOWER).to_dict(), projection_dim=64)).eval()
    model.load_state_dict(sd)
    ids = CLIPTokenizer.from_pretrained(comfy.sd1_clip.__file__.replace("sd1_clip.py", "sd1_tokenizer"))(prompt, truncation=True, max_length=77).input_ids
    ids += [padding] * (77 - len(ids))
    out = model(input_ids=torch.tensor([ids]), pixel_values=torch.cat([pixels(i[None], files.SIDE) for i in images]))
    return out.logits_per_image[:, 0]


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("mode", MODES)
def test_the_same_weights_in_transformers(images, expected, naming, mode):
    with MODES[mode]():
        found = reward_model(NAMINGS[naming](SD), "f.bin").scores(images, files.PROMPT, WHO)
    assert found.dtype == torch.float32 and found.shape == (3,) and tiny.difference(found, expected) <= 1e-5
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize("prompt", ["circle", "zig zag over blue, " * 40, "The Red CIRCLE ⁂ moves"])
def test_prompts_of_every_length(images, prompt):
    reward = reward_model(SD, "f")
    assert tiny.difference(reward.scores(images, prompt, WHO), theirs(SD, images, prompt)) <= 1e-5
    if len(prompt) < 100:
        assert tiny.difference(theirs(SD, images, prompt, padding=0), theirs(SD, images, prompt)) <= 1e-5, "padding counts"


def test_a_score_does_not_depend_on_the_other_pictures(images):
    reward = reward_model(SD, "f")
    whole = reward.scores(images, files.PROMPT, WHO)
    assert torch.equal(torch.cat([reward.scores(part, files.PROMPT, WHO) for part in images.split(2)]), whole)
    assert tiny.difference(reward.scores(images, "blue", WHO), whole) > 1e-3
    assert torch.equal(reward.scores(images, "a (red:1.3) circle", WHO), reward.scores(images, "a red circle", WHO))
    assert torch.equal(reward.scores(images, r"a \(red\) circle", WHO), reward_model(SD, "f").scores(images, r"a \(red\) circle", WHO))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_of_every_precision(images, mode, dtype):
    sd = {k: v.to(dtype) for k, v in SD.items()}
    expected = theirs({k: v.float() for k, v in sd.items()}, images, files.PROMPT)
    with MODES[mode]():
        for form in NAMINGS.values():
            assert tiny.difference(reward_model(form(sd), "f").scores(images, files.PROMPT, WHO), expected) <= 1e-5


def test_low_vram_gives_the_same_bits(images, monkeypatch):
    """No weight is loaded: each is fetched when its layer runs."""
    whole = reward_model(SD, "f").scores(images, files.PROMPT, WHO)
    comfy.model_management.unload_all_models()
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NO_VRAM)
    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)  # on a CPU the host sees no need to save memory
    assert torch.equal(reward_model(SD, "f").scores(images, files.PROMPT, WHO), whole)
    comfy.model_management.unload_all_models()


def test_the_source_is_not_changed_and_read_again_for_a_copy():
    source, read = files.open_clip(SD), []
    keys = list(source)
    reward = reward_model(lambda: read.append(1) or source, "f")
    copy = another(reward.patcher)
    assert list(source) == keys and len(read) == 2
    for (name, a), (other, b) in zip(copy.model.state_dict().items(), reward.patcher.model.state_dict().items()):
        assert name == other and torch.equal(a, b)


def test_openclips_names_are_the_same_weights():
    again = renamed(files.open_clip(SD), Reader("Node", "HPSv2", "f"))
    assert again.keys() == SD.keys() and all(torch.equal(again[k], SD[k]) for k in SD)


def test_the_published_size():
    """ViT-H/14: every weight of transformers' model is taken, with the heads and the activation that the host has for it."""
    from transformers import CLIPConfig, CLIPModel
    vision = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14, image_size=224, hidden_act="gelu")
    text = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, hidden_act="gelu")
    with torch.device("meta"):
        sd = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024)).state_dict()
    found = sizes(sd, Reader("Node", "PickScore", "f"))
    known = [json.loads(Path(comfy.__path__[0], name).read_text()) for name in ("text_encoders/sd2_clip_config.json", "clip_vision_config_h.json")]
    assert all(mine[key] == theirs[key] for mine, theirs in zip(found, known) for key in mine)
    assert {k.partition(".")[2]: v for k, v in shapes(partial(ClipPair, *found)).items()} | {"logit_scale": torch.Size()} == {k: v.shape for k, v in sd.items() if "position_ids" not in k}


def test_extra_tables_are_left():
    more = SD | {f"{part}_model.embeddings.position_ids": torch.arange(9)[None] for part in ("text", "vision")}
    assert reward_model(more, "f").scale == pytest.approx(torch.tensor(4.6).exp().item())


def broken(what: str) -> dict:
    without = {"no scale": "logit_scale", "no projection": "text_projection.weight", "lacks one": "vision_model.encoder.layers.2.mlp.fc2.bias",
               "no tower": "text_model.encoder.layers.0.mlp.fc1.weight"}
    if what in without:
        return {k: v for k, v in SD.items() if k != without[what]}
    if what == "ViT-L":
        return SD | {"vision_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(4096, 1024)}
    return SD | dict([{"NaN": ("logit_scale", torch.tensor(torch.nan)), "more": ("other", torch.zeros(2)),
                       "places": ("vision_model.embeddings.position_embedding.weight", torch.zeros(6, 128)), "heads": ("text_model.encoder.layers.0.mlp.fc1.weight", torch.zeros(96, 100)),
                       "narrow": ("text_model.encoder.layers.0.mlp.fc1.weight", torch.zeros(96, 32)),
                       "words": ("text_model.embeddings.token_embedding.weight", torch.zeros(100, 64)), "not square": ("text_projection.weight", torch.zeros(48, 64)),
                       "two scales": ("logit_scale", torch.zeros(2))}[what]])


@pytest.mark.parametrize("what, said", [
    ("no scale", "lacks logit_scale"), ("no projection", "lacks text_projection.weight"), ("lacks one", "lacks vision_model.encoder.layers.2.mlp.fc2.bias"),
    ("no tower", "no text_model.encoder.layers.0.mlp.fc1.weight"), ("NaN", "NaN or infinity in logit_scale"), ("more", "has the unknown other"),
    ("places", "77 places of a text and 6 of a picture. Expected"), ("heads", "with 100 columns. Expected a multiple of 64"), ("narrow", "with 32 columns"),
    ("words", r"token_embedding.weight of shape \[100, 64\] instead of \[49408, 64\]"), ("not square", r"text_projection.weight of shape \[48, 64\] instead of \[64, 64\]"),
    ("two scales", r"logit_scale of shape \[2\]"), ("ViT-L", "a CLIP of the size ViT-B or ViT-L. PickScore and HPSv2 are ViT-H/14; for a stock CLIP there is the node CLIPScore")])
def test_other_files_are_refused(what, said):
    with pytest.raises(ValueError, match=f"^Load Reward Model expected ImageReward, PickScore or HPSv2 in 'f.pt', found .*{said}"):
        reward_model(broken(what), "f.pt")


def test_weights_that_overflow_are_named(images):
    with pytest.raises(ValueError, match="Node: f gives NaN or infinity for 3 of 3 pictures. Its weights are damaged"):
        reward_model(SD | {"logit_scale": torch.tensor(200.0)}, "f").scores(images, files.PROMPT, WHO)
