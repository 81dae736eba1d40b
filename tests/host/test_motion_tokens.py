"""Motion Tokens on the real server: in CLIP Text Encode's place it changes no bit, shows what it found, and explains what it cannot use."""
import pytest
from firstframe.demo.cli import outputs
from firstframe.tests import graphs


def graph(**inputs) -> dict:
    """The plain graph with its prompt encoded by our node."""
    out = graphs.plain(frames=1)
    out["positive"] = {"class_type": "FF_MotionTokens", "inputs": {"clip": ["model", 1], "text": graphs.PROMPT, "words": "", **inputs}}
    out["shown"] = {"class_type": "PreviewAny", "inputs": {"source": ["positive", 2]}}
    return out


def test_it_stands_for_clip_text_encode_and_shows_its_words(host):
    out = host.run(graph(words="circle"))
    assert out["positive"]["text"] == out["shown"]["text"] == ["a red [[circle]] on a blue background"]
    stock = host.run(graphs.plain(frames=1))
    frames = [[f.tobytes() for f in outputs.read_webp(host.fetch(o["save"]["images"][0]))[0]] for o in (out, stock)]  # the files hold their graphs too
    assert len(frames[0]) == 1 and frames[0] == frames[1]


def test_it_finds_the_words_and_says_when_there_are_none(host):
    assert host.run(graph(text="a red circle is (rolling:1.2)"))["positive"]["text"] == ["a red circle is ([[rolling]]:1.2)"]
    assert host.run(graph())["positive"]["text"] == [f"(no motion word: the whole picture counts) {graphs.PROMPT}"]
    assert "Motion Tokens found no motion word in" in host.log.read_text(errors="replace")


@pytest.mark.parametrize("inputs, said", [
    ({"words": "dancing"}, "Motion Tokens got 'dancing' in 'words', which the prompt 'a red circle on a blue background' does not contain."),
    ({"text": "   "}, "Motion Tokens needs a prompt, got an empty one."),
])
def test_what_it_cannot_use(host, inputs, said):
    assert host.run_expecting_error(graph(**inputs)).startswith(f"Node positive (FF_MotionTokens): {said}")
    host.run(graph(words="circle"))
