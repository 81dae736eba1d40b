"""The prompt without its syntax, typed words in it, and the marks."""
import pytest
from comfy.sd1_clip import escape_important, token_weights, unescape_important
from firstframe.prompts.text import find_typed, mark, plain

PROMPTS = [
    "a bear is dancing", "a (bear:1.2) is ((dancing))", r"a cat \(animal\) jumping", "(a (dog running:1.3) here:0.9), sky", "(x:1) (y:-0.5) (z: 2.0 )",
    "unbalanced ( bracket", "10:30 in the morning", "", "()",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_plain_has_the_words_that_the_host_reads(prompt):
    host = " ".join(unescape_important(segment) for segment, _ in token_weights(escape_important(prompt), 1.0))
    assert len(plain(prompt)) == len(prompt)
    assert plain(prompt).split() == host.replace("(", " ").replace(")", " ").split()


def test_embeddings_and_lora_tags_are_no_words():
    assert plain("embedding:running.pt, a (embedding:dancing:1.2) cat <lora:walking:0.8>").split() == [",", "a", "cat"]
    assert plain("notembedding:x").split() == ["notembedding:x"]


@pytest.mark.parametrize("text, typed, marked", [
    ("a bear is dancing", "dancing", "a bear is [[dancing]]"),
    ("A Bear, a bear", "bear", "A [[Bear]], a [[bear]]"),
    ("snow is falling  (softly:1.2)", "falling softly", "snow is [[falling]]  ([[softly]]:1.2)"),
    ("dancing dancers", " dancing ,, dancers ", "[[dancing]] [[dancers]]"),
    ("dancing dancers", "dancing dancers, dancing", "[[dancing]] [[dancers]]"),
    ("jumping_dog", "jumping", "[[jumping]]_dog"),
    ("the dog's tail", "dog", "the [[dog]]'s tail"),
    ("slow-motion a+b", "slow-motion, a+b", "[[slow-motion]] [[a+b]]"),
    ("(dancing:1.2)", "(dancing:1.5)", "([[dancing]]:1.2)"),
])
def test_typed_words_are_marked(text, typed, marked):
    assert mark(text, find_typed(text, typed, "Node")) == marked


@pytest.mark.parametrize("typed, named", [("danc", "'danc'"), ("dancing, flying", "'flying'"), ("bear dancing", "'bear dancing'"), (",", "','"), ("()", r"'\(\)'")])
def test_words_that_are_not_in_the_prompt_are_named(typed, named):
    with pytest.raises(ValueError, match=f"Node got {named} in 'words', which the prompt 'a bear is dancing' does not contain. Type whole words"):
        find_typed("a bear is dancing", typed, "Node")


def test_a_word_inside_an_embeddings_name_is_not_in_the_prompt():
    with pytest.raises(ValueError, match="'dancing'"):
        find_typed("a bear embedding:dancing here", "dancing", "Node")


def test_no_span_no_mark():
    assert mark("a (red:1.2) bear", []) == "a (red:1.2) bear"
