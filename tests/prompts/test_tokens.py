"""Words to columns, with the host's real tokenizers; the columns are read back through the vocabulary."""
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import pytest
import torch
from firstframe.prompts.text import find_typed
from firstframe.prompts.tokens import check_encoder, columns, motion_tokens
from safetensors.torch import save_file

LONG = "a quiet village by the sea with many small houses, "  # 12 tokens


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    save_file({"emb_params": torch.randn(3, 768)}, folder / "three.safetensors")
    save_file({"clip_l": torch.randn(2, 768), "clip_g": torch.randn(5, 1280)}, folder / "both.safetensors")
    return str(folder)


def host_clip(tokenizer) -> comfy.sd.CLIP:
    """The host's CLIP object with its tokenizer and without a network."""
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = tokenizer, {}
    return clip


@pytest.fixture(scope="module")
def sd15(embeddings):
    return host_clip(comfy.sd1_clip.SD1Tokenizer(embedding_directory=embeddings))


@pytest.fixture(scope="module")
def sdxl(embeddings):
    return host_clip(comfy.sdxl_clip.SDXLTokenizer(embedding_directory=embeddings))


def find(clip, text: str, typed: str) -> tuple[int, ...]:
    return columns(clip, text, find_typed(text, typed, "Node"), "Node")


def read(clip, text: str, positions, key: str = "l") -> list[str]:
    """The words that stand at these columns, from the token ids and the vocabulary."""
    flat = [token for chunk in clip.tokenize(text)[key] for token, _ in chunk]
    vocabulary = clip.tokenizer.clip_l.inv_vocab
    return "".join(vocabulary[flat[p]] for p in positions).split("</w>")[:-1]


@pytest.mark.parametrize("text, typed, words", [
    ("a bear is dancing happily", "dancing", ["dancing"]),
    ("DANCING bear", "dancing", ["dancing"]),
    ("dancing", "dancing", ["dancing"]),
    ("a robot moonwalking on the moon", "moonwalking", ["moonwalking"]),
    ("waves crash, waves roll", "waves", ["waves", "waves"]),
    ("a bear is (dancing:1.2) happily", "dancing", ["dancing"]),
    ("(a ((bear)) is (dancing:1.2):0.5) now", "bear, now", ["bear", "now"]),
    (r"a cat \(jumping\) high", "jumping", ["jumping"]),
    (r"a \(very (jumping:1.1)\) cat", "jumping", ["jumping"]),
    ("a bear ( is dancing", "dancing", ["dancing"]),
    ("a bear ) is :1.2) dancing (", "dancing", ["dancing"]),
    ("[dancing] {bear}", "dancing, bear", ["dancing", "bear"]),
    ("holding_sword,jumping...high", "jumping", ["jumping"]),
    ("the dog's running!", "running", ["running"]),
    ("2girls dancing in 1920s dresses", "dancing", ["dancing"]),
    ("a girl 在 dancing café 🌊crash🌊", "dancing, crash", ["dancing", "crash"]),
    ("a ⁂ bear dancing", "dancing", ["dancing"]),
    ("falling  (snow:1.3)", "falling snow", ["falling", "snow"]),
    ("falling\n\nsnow", "snow", ["snow"]),
    ("dancing embedding:nosuchfile dancing", "dancing", ["dancing", "dancing"]),
    ("a bear" + " very" * 70 + " slowly dancing", "dancing", ["dancing"]),
    (LONG * 12 + "dancing bears", "dancing", ["dancing"]),
    (f"({LONG * 7}:1.1) a boy skateboarding " + LONG * 3, "skateboarding", ["skateboarding"]),
])
def test_the_columns_hold_the_words(sd15, text, typed, words):
    positions = find(sd15, text, typed)
    assert read(sd15, text, positions) == words and list(positions) == sorted(set(positions))


def test_every_prefix_length_up_to_three_chunks_against_counting(sd15):
    """The obvious way for a prompt without syntax, cut by the host every 75 tokens: count the tokens before the word."""
    tokenizer = sd15.tokenizer.clip_l.tokenizer
    for n in range(0, 160, 7):
        prefix = "very " * n
        count = len(tokenizer(prefix)["input_ids"]) - 2
        assert find(sd15, prefix + "dancing in the cold and heavy rain of spring", "dancing") == (count // 75 * 77 + 1 + count % 75,)


def test_an_embedding_takes_as_many_columns_as_it_has_vectors(sd15):
    without = find(sd15, "a bear dancing", "dancing")
    text = "a embedding:three bear dancing"
    assert find(sd15, text, "dancing") == (without[0] + 3,) and read(sd15, text, find(sd15, text, "bear, dancing")) == ["bear", "dancing"]
    assert find(sd15, "embedding:three, (dancing embedding:three:1.2)", "dancing") == (5,)


def test_sdxl_where_its_encoders_differ_gives_the_columns_of_both(sdxl):
    assert find(sdxl, "a bear dancing", "dancing") == (3,)
    assert find(sdxl, "embedding:both dancing", "dancing") == (3, 6)  # 2 vectors for one encoder, 5 for the other
    text = LONG * 9 + "dancing"
    assert read(sdxl, text, find(sdxl, text, "dancing"), "g") == ["dancing"]


def test_what_the_host_cuts_off_is_left_out(sd15):
    spans = find_typed("a bear dancing", "bear, dancing", "Node")
    assert motion_tokens(sd15, "a bear dancing", spans, 3, "Node").positions == (2,)
    found = motion_tokens(sd15, "a bear dancing", spans, 77, "Node")
    assert (found.positions, found.length, found.words) == ((2, 3), 77, ("bear", "dancing"))
    assert motion_tokens(sd15, "a bear dancing", [], 77, "Node").positions == ()


def test_part_of_a_token_is_refused(sd15):
    with pytest.raises(ValueError, match="Node cannot tell the tokens of 'danc' from .* Put spaces around"):
        columns(sd15, "a bear dancing", [(7, 11)], "Node")


def test_other_text_encoders_are_refused():
    with pytest.raises(ValueError, match=r"Node needs the CLIP of an SD1.5- or SDXL-type .* got a text encoder whose tokens are \['l', 't5xxl'\]"):
        check_encoder({"t5xxl": [], "l": []}, "Node")
