"""ImageReward against the official numbers (golden h1), against transformers' BLIP with the same weights, in both of the host's memory modes; and what is refused."""
import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import comfy.model_management
import pytest
import torch
from firstframe.networks.blip import Blip, size_of
from firstframe.networks.files import Reader
from firstframe.networks.image_reward import MEAN, STD, image_reward, tokenizer
from firstframe.networks.motion_module_files import motion_module
from firstframe.networks.patcher import another
from firstframe.networks.reward import pixels, plain, shapes
from firstframe.networks.reward_files import reward_model
from firstframe.tests import reward_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode
from PIL import Image
from safetensors.torch import load_file

WHO = "Node"
MODES = {"ordinary": nullcontext, "dynamic": dynamic_mode}
GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = load_file(GOLDEN_FOLDER / "h1_imagereward_tiny.safetensors")
SAYS = Reader("Load Reward Model", "ImageReward", "f")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return files.vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture
def load(vocabulary):
    return lambda sd=None, name="f": reward_model(files.image_reward() if sd is None else sd, name, lambda: vocabulary)


@torch.no_grad()
def test_official_numbers(tmp_path):
    """The tiny network has heads of 16."""
    sd = {k.removeprefix("w."): v for k, v in GOLDEN.items() if k.startswith("w.")}
    words = files.vocabulary(tmp_path, ["[CLS]", "[SEP]", "[UNK]", *map(str, range(115))])
    found = image_reward(sd, lambda: sd, SAYS, words, dim_head=16)
    net, pictures = found.patcher.model, GOLDEN["in.image"]
    seen = net.blip["visual_encoder"](pictures)
    assert tiny.difference(seen, GOLDEN["out.image_tokens"]) <= 1e-5
    for n, (ids, mask) in enumerate(zip(GOLDEN["in.input_ids"], GOLDEN["in.attention_mask"])):
        ids = ids[mask.bool()][None]
        assert tiny.difference(net.blip["text_encoder"](ids, seen[n:n + 1])[0], GOLDEN["out.text_hidden"][n, :ids.shape[1]]) <= 1e-5
        assert abs((net(pictures[n:n + 1], ids) - MEAN) / STD - GOLDEN["out.reward"][n]) <= 1e-5 * GOLDEN["out.reward"].abs().max()


def test_the_published_file_has_every_weight():
    """By its keys and shapes; what it has beside them is not of the score."""
    published = {k: torch.Size(shape) for k, shape in json.loads((GOLDEN_FOLDER / "imagereward_v1.json").read_text()).items()}
    size = size_of(lambda key, axes=None: published.get(key))
    wanted = shapes(partial(Blip, size))
    assert wanted.items() <= published.items() and (size.side, size.width // size.dim_head, size.text_width // size.dim_head, size.vocabulary) == (224, 16, 12, 30524)
    left = {k.removeprefix("blip.").split(".")[0] for k in published.keys() - wanted.keys()}
    assert left <= {"text_encoder", "vision_proj", "text_proj"} and all("position_ids" in k for k in published.keys() - wanted.keys() if "text_encoder" in k)


def theirs(sd):
    """(pixels, ids, mask) -> score, on transformers' two encoders with the file's weights under their names."""
    from transformers import BlipTextConfig, BlipVisionConfig
    from transformers.models.blip.modeling_blip import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel
    size = files.BLIP
    see = BlipVisionModel(BlipVisionConfig(hidden_size=size.width, intermediate_size=size.hidden, num_hidden_layers=size.depth, num_attention_heads=size.width // 64,
                                           image_size=size.side, patch_size=size.patch, layer_norm_eps=1e-6, hidden_act="gelu"))
    say = BlipTextModel(BlipTextConfig(vocab_size=size.vocabulary, hidden_size=size.text_width, encoder_hidden_size=size.width, intermediate_size=size.text_hidden,
                                       num_hidden_layers=size.text_depth, num_attention_heads=size.text_width // 64, max_position_embeddings=size.positions,
                                       layer_norm_eps=1e-12, hidden_act="gelu", is_decoder=True), add_pooling_layer=False)
    names = {"cls_token": "embeddings.class_embedding", "pos_embed": "embeddings.position_embedding", "patch_embed.proj": "embeddings.patch_embedding", "blocks": "encoder.layers",
             ".attn.proj": ".self_attn.projection", ".attn.qkv": ".self_attn.qkv", ".norm1": ".layer_norm1", ".norm2": ".layer_norm2"}
    vision, text = {}, {}
    for key, value in sd.items():
        if key.startswith("blip.visual_encoder."):
            key = key.removeprefix("blip.visual_encoder.")
            for mine, other in names.items():
                key = key.replace(mine, other)
            vision["post_layernorm" + key.removeprefix("norm") if key.startswith("norm.") else key] = value
        elif key.startswith("blip.text_encoder."):
            text[key.removeprefix("blip.text_encoder.")] = value
    see.load_state_dict(vision)
    missing, _ = say.load_state_dict(text, strict=False)
    assert not missing
    see, say = see.eval(), say.eval()

    @torch.no_grad()
    def score(x, ids, mask):
        y = say(input_ids=ids, attention_mask=mask, encoder_hidden_states=see(x)[0], encoder_attention_mask=torch.ones(1, size.places))[0][:, 0]
        for n in (0, 2, 4, 6, 7):
            y = y @ sd[f"mlp.layers.{n}.weight"].T + sd[f"mlp.layers.{n}.bias"]
        return (y - 0.16717362830052426) / 1.0333394966054072

    return score


@pytest.mark.parametrize("prompt", [files.PROMPT, "over", files.PROMPT + ", " + "zig zag over blue, " * 9, "Été déjà 红圆 don't\tover [MASK]!"])
def test_the_same_weights_in_transformers(load, vocabulary, prompt):
    """With the prompt cut and padded to 35 tokens and pictures resized and cut as the authors' code does it."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
    from transformers import BertTokenizer
    score, bert = theirs(files.image_reward()), BertTokenizer.from_pretrained(str(Path(vocabulary).parent))
    say = bert(prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    side = files.BLIP.side
    see = Compose([Resize(side, interpolation=InterpolationMode.BICUBIC), CenterCrop(side), ToTensor(), Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])
    for size in ((40, 53), (61, 33), (32, 32), (20, 31)):
        images = files.pictures(2, *size)
        found = load().scores(images, prompt, WHO)
        expected = torch.cat([score(see(Image.fromarray((i * 255).round().byte().numpy()))[None], say["input_ids"], say["attention_mask"])[:, 0] for i in images])
        assert found.dtype == torch.float32 and found.shape == (2,) and (found - expected).abs().max() <= 1e-5, "a score's unit is 1"
        assert abs(found[0] - found[1]) > 1e-3


@pytest.mark.parametrize("side", [28, 224])
def test_pictures_are_those_of_torchvision_to_the_bit(side):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
    see = Compose([Resize(side, interpolation=InterpolationMode.BICUBIC), CenterCrop(side), ToTensor(), Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])
    for n, size in enumerate(((512, 512), (64, 64), (224, 224), (97, 301), (1000, 40), (28, 31), (29, 28), (333, 500))):
        image = Image.effect_noise(size, 80 + n).convert("RGB")
        picture = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, size[1], size[0], 3).float() / 255
        assert torch.equal(pixels(picture, side)[0], see(image))


def test_a_score_does_not_depend_on_the_other_pictures(load):
    images, reward = files.pictures(5), load()
    whole = reward.scores(images, files.PROMPT, WHO)
    assert torch.equal(torch.cat([reward.scores(part, files.PROMPT, WHO) for part in images.split(2)]), whole)
    assert torch.equal(reward.scores(images.flip(0), files.PROMPT, WHO).flip(0), whole)
    alpha = torch.cat([images, torch.rand(*images.shape[:3], 1)], -1)
    assert torch.equal(reward.scores(alpha, files.PROMPT, WHO), whole)
    assert len(set(whole.tolist())) == 5 and tiny.difference(reward.scores(images, "blue", WHO), whole) > 1e-3


def test_emphasis_is_not_read(load):
    assert plain(r"a (red:1.2) ((circle)) \(moving\), blue") == "a red circle (moving), blue"
    images, reward = files.pictures(), load()
    assert torch.equal(reward.scores(images, "a (red:1.3) circle", WHO), reward.scores(images, "a red circle", WHO))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_files_of_every_precision(load, mode, dtype):
    sd = {k: v.to(dtype) if v.is_floating_point() else v for k, v in files.image_reward().items()}
    expected = load({k: v.float() for k, v in sd.items()}).scores(files.pictures(), files.PROMPT, WHO)
    with MODES[mode]():
        assert tiny.difference(load(sd).scores(files.pictures(), files.PROMPT, WHO), expected) <= 1e-5


def test_low_vram_gives_the_same_bits(load, monkeypatch):
    """No weight is loaded: each is fetched when its layer runs."""
    expected = load().scores(files.pictures(), files.PROMPT, WHO)
    comfy.model_management.unload_all_models()
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NO_VRAM)
    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)  # on a CPU the host sees no need to save memory
    assert torch.equal(load().scores(files.pictures(), files.PROMPT, WHO), expected)
    comfy.model_management.unload_all_models()


@pytest.mark.parametrize("mode", MODES)
def test_every_further_copy_comes_from_the_source(vocabulary, mode):
    sources = [files.image_reward()] * 2 + [files.image_reward(size=files.BlipSize(**{**vars(files.BLIP), "depth": 1}))]
    with MODES[mode]():
        reward = reward_model(lambda: sources.pop(0), "f.pt", lambda: vocabulary)
        copy = another(reward.patcher)
        assert copy.model is not reward.patcher.model
        for (name, a), (other, b) in zip(copy.model.state_dict().items(), reward.patcher.model.state_dict().items()):
            assert name == other and torch.equal(a, b)
        with pytest.raises(ValueError, match="'f.pt', which has been replaced by another file"):
            another(reward.patcher)


def changed(what: str) -> dict:
    sd = files.image_reward()
    without = {"lacks one": "blip.text_encoder.encoder.layer.1.crossattention.self.key.weight", "no patches": "blip.visual_encoder.patch_embed.proj.weight",
               "no readout": "mlp.layers.6.weight", "no words": "blip.text_encoder.embeddings.word_embeddings.weight"}
    if what in without:
        return {k: v for k, v in sd.items() if k != without[what]}
    return sd | dict([{"NaN": ("mlp.layers.0.bias", torch.full((1024,), torch.nan)), "shape": ("mlp.layers.7.weight", torch.zeros(1, 15)),
                       "places": ("blip.visual_encoder.pos_embed", torch.zeros(1, 18, 128)), "no places": ("blip.visual_encoder.pos_embed", torch.zeros(1, 0, 128)),
                       "one axis": ("blip.visual_encoder.pos_embed", torch.zeros(17)), "heads": ("blip.visual_encoder.blocks.0.mlp.fc1.weight", torch.zeros(96, 100)),
                       "short": ("blip.text_encoder.embeddings.position_embeddings.weight", torch.zeros(34, 64)),
                       "text heads": ("blip.text_encoder.embeddings.word_embeddings.weight", torch.zeros(files.BLIP.vocabulary, 65)),
                       "whole numbers": ("mlp.layers.0.bias", torch.zeros(1024, dtype=torch.long))}[what]])


@pytest.mark.parametrize("what, said", [
    ("lacks one", "lacks blip.text_encoder.encoder.layer.1.crossattention.self.key.weight"), ("no patches", "no blip.visual_encoder.patch_embed.proj.weight"),
    ("no readout", "lacks mlp.layers.6.weight"), ("no words", "no blip.text_encoder.embeddings.word_embeddings.weight"), ("NaN", "NaN or infinity in mlp.layers.0.bias"),
    ("shape", r"mlp.layers.7.weight of shape \[1, 15\] instead of \[1, 16\]"),
    ("places", "pictures of width 128 and 18 places. Expected a multiple of 64, and a square and 1"), ("no places", r"pos_embed of shape \[1, 0, 128\]"),
    ("one axis", "Expected 3 axes"), ("heads", "pictures of width 100 and 17 places"), ("short", "64 and 34 places. Expected a multiple of 64, and at least 35"),
    ("text heads", "text of width 65"), ("whole numbers", "numbers of type int64 in mlp.layers.0.bias")])
def test_other_files_are_refused(load, what, said):
    with pytest.raises(ValueError, match=f"^Load Reward Model expected ImageReward, PickScore or HPSv2 in 'f.pt', found .*{said}"):
        load(changed(what), "f.pt")


def test_files_of_other_kinds_are_named(load):
    from firstframe.tests import adapter_files, motion_files
    model = tiny.model(**tiny.SMALL)
    for sd, said in ((motion_files.module(model), "a motion module. Motion modules belong"), (adapter_files.adapter(model), "an IP-Adapter. IP-Adapters belong"),
                     ({}, "0 tensors of no kind"),
                     ({k: v for k, v in files.clip().items() if k.startswith("vision_model.")}, "a CLIP vision model. CLIP vision models belong into models/clip_vision"),
                     ({k: v for k, v in files.clip().items() if k.startswith("text_")}, "a text encoder. Text encoders belong")):
        with pytest.raises(ValueError, match=f"^Load Reward Model expected .* in 'f', found {said}"):
            load(sd)
    for sd, said in ((files.image_reward(), "an ImageReward model. ImageReward belongs into models/reward_models"), (files.clip(), "a whole CLIP .text and pictures.. CLIPs that score"),
                     (files.open_clip(files.clip()), "a whole CLIP")):
        with pytest.raises(ValueError, match=f"^Load Motion Module expected .*, found {said}"):
            motion_module(sd, "f")


@pytest.mark.parametrize("words", [files.WORDS[:-1], files.WORDS[:-1] + [files.WORDS[0]], ["[cls]" if w == "[CLS]" else w for w in files.WORDS], []])
def test_another_vocabulary_is_refused(tmp_path, words):
    with pytest.raises(ValueError, match=r"expected \d+ different words, \[CLS\], \[SEP\] and \[UNK\] among them, in vocab.txt for 'f', found \d+. Fetch vocab.txt of bert-base-uncased"):
        tokenizer(files.vocabulary(tmp_path, words), files.BLIP.vocabulary, SAYS)


def test_no_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs the vocabulary of ImageReward beside 'f'. Fetch vocab.txt of bert-base-uncased and put it beside the file or into models/reward_models"):
        reward_model(files.image_reward(), "f")
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot read vocab.txt for 'f': it is no text. Fetch"):
        tokenizer(str(tmp_path / "vocab.txt"), files.BLIP.vocabulary, SAYS)


@pytest.mark.parametrize("images, prompt, said", [
    (torch.rand(4, 4, 3), "a", r"needs pictures \[number, height, width, 3\], got one of \[4, 4, 3\]"), (torch.rand(0, 4, 4, 3), "a", r"got one of \[0, 4, 4, 3\]"),
    (torch.rand(1, 4, 4, 1), "a", r"got one of \[1, 4, 4, 1\]"), (torch.full((1, 4, 4, 3), torch.nan), "a", "NaN or infinite values. Look at the node"),
    (torch.rand(1, 4, 4, 3), "", "Node needs a prompt"), (torch.rand(1, 4, 4, 3), " \n\t", "Node needs a prompt: .* Type what the picture should show")])
def test_no_picture_or_no_prompt_is_refused(load, images, prompt, said):
    with pytest.raises(ValueError, match=said):
        load().scores(images, prompt, WHO)
