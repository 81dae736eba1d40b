"""Motion Tokens: the node on the demo's real CLIP."""
import logging
import sys

import comfy.sd
import pytest
import torch
from firstframe.demo.in_process import CHECKPOINT
from firstframe.nodes.motion_tokens import MotionTokensNode
from firstframe.prompts import motion_words


@pytest.fixture(scope="module")
def clip():
    return comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT), output_vae=False)[1]


def run(clip, text, words="", tagger="auto"):
    out = MotionTokensNode.execute(clip, text, words, tagger)
    assert out.ui.as_dict()["text"] == (out.result[2],)
    return out.result


def test_the_conditioning_is_that_of_clip_text_encode(clip):
    text = "a (bear:1.3) is dancing " + "on the wide and cold sea " * 20
    from nodes import CLIPTextEncode
    (stock, extra), = CLIPTextEncode().encode(clip, text)[0]
    ((ours, more),), tokens, marked = run(clip, text)
    assert torch.equal(stock, ours) and extra.keys() == more.keys()
    assert tokens.length == stock.shape[1] == 154 and tokens.positions == (4,) and tokens.words == ("dancing",)
    assert marked == text.replace("dancing", "[[dancing]]")


def test_typed_words_win(clip):
    _, tokens, marked = run(clip, "a bear is dancing on the sea", "Sea")
    assert marked == "a bear is dancing on the [[sea]]" and tokens.positions == (7,) and tokens.words == ("sea",)


@pytest.mark.parametrize("text, tagger", [("a red circle", "auto"), ("a bear is dancing", "off")])
def test_no_motion_word_says_so_once(clip, caplog, text, tagger):
    with caplog.at_level(logging.WARNING, "FirstFrame"):
        _, tokens, marked = run(clip, text, tagger=tagger)
    assert tokens.positions == () and tokens.words == () and tokens.length == 77
    assert marked == f"(no motion word: the whole picture counts) {text}"
    assert [r.getMessage() for r in caplog.records if r.name == "FirstFrame"] == [
        f"Motion Tokens found no motion word in {text!r}: the whole picture counts alike. Type one in 'words' to change that."]


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_an_empty_prompt_is_refused(clip, text):
    with pytest.raises(ValueError, match="Motion Tokens needs a prompt, got an empty one. Describe in 'text'"):
        run(clip, text)


def test_a_checkpoint_without_clip_is_named():
    with pytest.raises(ValueError, match="Motion Tokens got no CLIP.* connect the CLIP of Load Checkpoint"):
        run(None, "a bear")


def test_a_missing_tagger_only_matters_without_typed_words(clip, monkeypatch):
    motion_words.tagger.cache_clear()
    monkeypatch.setitem(sys.modules, "HanTa.HanoverTagger", None)
    assert run(clip, "a bear is dancing", "dancing")[1].positions == (4,)
    assert run(clip, "a bear is dancing", tagger="off")[1].positions == ()
    with pytest.raises(RuntimeError, match="got nothing in 'words' .* HanTa.* is not installed. Type them .*pip install HanTa"):
        run(clip, "a bear is dancing")
