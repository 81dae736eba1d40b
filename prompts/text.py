"""A prompt as text: what its words are once the host's prompt syntax is taken away, where typed words stand in it, and how to mark them.

Everything here works with spans (start, end) in characters of the prompt as it was written.
"""
import re

Span = tuple[int, int]

# Syntax of the host (comfy/sd1_clip.py: token_weights, escape_important, embeddings) and `<lora:...>` of other programs, which many prompts carry along.
SYNTAX = re.compile(r"(?:(?<=[\s()])|^)embedding:[^\s<\[),]+|<[^<>]*>|:\s*[-+]?[\d.]+\s*(?=\))|\\(?=[()])|[()\[\]{}]")
WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*|(?<=\w)['\u2019][^\W_]+")  # "that's" is two words, as for a tagger


def plain(text: str) -> str:
    """The prompt with its syntax (weights, brackets, escapes, embeddings) replaced by spaces: as long as before, so that positions stay."""
    return SYNTAX.sub(lambda m: " " * len(m[0]), text)


def find_typed(text: str, typed: str, who: str) -> list[Span]:
    """Spans of every word of every occurrence of comma-separated words or phrases, in the order of the prompt; upper and lower case are the same.

    Raises ValueError naming those that are not in the prompt as whole words, or when `typed` holds no word at all.
    """
    clean, spans, missing = plain(text), set(), []
    phrases = [p for p in plain(typed).split(",") if p.strip()]
    for phrase in phrases:
        words = r"\s+".join(map(re.escape, phrase.split()))
        found = list(re.finditer(rf"(?<![^\W_]){words}(?![^\W_])", clean, re.IGNORECASE))
        spans |= {(m.start() + w.start(), m.start() + w.end()) for m in found for w in re.finditer(r"\S+", m[0])}
        missing += [] if found else [" ".join(phrase.split())]
    if missing or not phrases:
        raise ValueError(
            f"{who} got {', '.join(map(repr, missing)) or repr(typed)} in 'words', which the prompt {' '.join(clean.split())!r} does not contain. "
            f"Type whole words or phrases as the prompt writes them, separated by commas, or leave 'words' empty."
        )
    return sorted(spans)


def mark(text: str, spans: list[Span]) -> str:
    """The prompt with every span in double brackets: "a bear is [[dancing]]"."""
    for start, end in sorted(spans, reverse=True):
        text = f"{text[:start]}[[{text[start:end]}]]{text[end:]}"
    return text
