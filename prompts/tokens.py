"""From words of a prompt to the columns of its conditioning, through the host's own tokenizer.

The K tokens of Eq. 11 are columns of the CONDITIONING [1, N, width]: token j of the tokenizer's chunks, laid end to end (N = 77 x chunks for CLIP),
with start, end and padding tokens counted in. Words become tokens in the host: weights, brackets, escapes, embeddings, words of
several tokens and the cut into chunks are its business. So the words are found by asking it twice: once for the prompt, once for
the prompt with a sign before and after every word, and comparing.
"""
from dataclasses import dataclass

from .text import Span

SIGNS = "\u2042\u203b\u2051\u00a7\u00b6"  # asterism and its like: neither letter nor digit nor space: a token of its own wherever it stands between spaces
CLIP_KEYS = {"l", "g", "h"}  # tokens of SD1.5, SDXL and SD2 in the host


@dataclass(frozen=True)
class MotionTokens:
    """What FF_MotionTokens hands on. positions: ascending columns of the conditioning (0 is the start token), () when no word is motion."""

    positions: tuple[int, ...]
    length: int  # columns of the conditioning
    words: tuple[str, ...]  # as they stand in the prompt, in its order


def real_tokens(chunks: list[list[tuple]]) -> list[tuple[int, int | None]]:
    """(column, token id; None for a vector of an embedding) of the tokens that the text made; word number 0 is start, end and padding."""
    flat = [token for chunk in chunks for token in chunk]
    return [(column, token if isinstance(token, int) else None) for column, (token, _, word) in enumerate(flat) if word]


def between_signs(ids: list, sign: list) -> tuple[list, list[int]]:
    """(ids without the signs, indices in them that stand between an odd sign and the next)."""
    rest, inside, open_, i = [], [], False, 0
    while i < len(ids):
        if ids[i:i + len(sign)] == sign:
            open_, i = not open_, i + len(sign)
        else:
            inside += [len(rest)] if open_ else []
            rest.append(ids[i])
            i += 1
    return rest, inside


def check_encoder(tokens: dict, who: str) -> None:
    """Raises ValueError unless the host's tokens are those of CLIP alone."""
    if not set(tokens) <= CLIP_KEYS:
        raise ValueError(f"{who} needs the CLIP of an SD1.5- or SDXL-type checkpoint, got a text encoder whose tokens are {sorted(tokens)}. "
                         f"Connect the CLIP of Load Checkpoint.")


def columns(clip, text: str, spans: list[Span], who: str) -> tuple[int, ...]:
    """Columns of the conditioning that `clip` makes of the spans of `text`; where SDXL's two encoders differ, those of either.

    Raises ValueError for a span inside something that the host takes as one.
    """
    plain = clip.tokenize(text, return_word_ids=True)
    sign = next(s for s in SIGNS if s not in text)
    signed = text
    for start, end in sorted(spans, reverse=True):
        signed = f"{signed[:start]} {sign} {signed[start:end]} {sign} {signed[end:]}"
    signed, alone = clip.tokenize(signed, return_word_ids=True), clip.tokenize(sign, return_word_ids=True)
    found = set()
    for key, chunks in plain.items():
        tokens = real_tokens(chunks)
        rest, inside = between_signs([t for _, t in real_tokens(signed[key])], [t for _, t in real_tokens(alone[key])])
        if rest != [t for _, t in tokens]:
            words = ", ".join(repr(text[start:end]) for start, end in spans)
            raise ValueError(f"{who} cannot tell the tokens of {words} from their neighbours' in this prompt. "
                             f"Put spaces around the words, or choose others in 'words'.")
        found |= {tokens[i][0] for i in inside}
    return tuple(sorted(found))


def motion_tokens(clip, text: str, spans: list[Span], length: int, who: str) -> MotionTokens:
    """length: columns of the conditioning that the host made; of SDXL's encoders it keeps the shorter one's, and tokens beyond go unseen."""
    positions = columns(clip, text, spans, who) if spans else ()
    return MotionTokens(tuple(p for p in positions if p < length), length, tuple(text[start:end] for start, end in spans))
