"""Which words of an English prompt name a visible movement (PiLife section 3.3: "motion text").

The paper fine-tuned a BERT on a private data set. Here a part-of-speech tagger (HanTa, Hanover Tagger, tags of the BNC's C5 set) finds the
verbs, and a few rules of grammar decide where the tagger alone cannot: participles before a noun, tags without a sentence, verbs that look
like plural nouns. What counts as motion is written at the top of tests/prompts/motion_prompts.tsv, which measures this file.
"""
import re
from dataclasses import dataclass
from functools import cache

from .lexicon import CAMERA, CREATURES, FOR_USE, MOVED, MOVERS, NAMED_ING, NOT_MOTION, PURPOSE
from .text import WORD, Span, plain

# Tags of the C5 set.
BEFORE_NOUN = ("AT0", "AJ0", "AJC", "AJS", "DPS", "DT0", "CRD", "ORD")  # article, adjective, possessive, number
NOUN = ("NN0", "NN1", "NN2", "NP0")
FINITE = ("VVB", "VVD", "VVZ")
LONGEST = 30  # letters of a word that are looked at; the tagger's time grows with their cube
GUESSED = -25.0  # HanTa's log probability: above for words and parts of words that it knows, mostly below where it guesses


class TaggerMissing(ImportError):
    """HanTa is not installed."""


@cache  # a tagger is a quarter of a second and some megabytes of plain tables, and never changes
def tagger():
    """HanTa with the English model that is inside its package. Raises TaggerMissing."""
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ImportError as error:
        raise TaggerMissing("The package HanTa, which finds motion words, is not installed.") from error
    return HanoverTagger("morphmodel_en.pgz")


@dataclass(frozen=True)
class Word:
    """A word of a clause. tag: C5 tag in its context; readings: tags it can have at all; stem: the verb it would be a form of."""

    text: str
    span: Span
    tag: str
    readings: frozenset[str]
    stem: str

    @property
    def noun(self) -> bool:
        return self.tag in NOUN


def clauses(text: str) -> list[list[tuple[str, Span]]]:
    """The prompt's words between commas, stops and lines, each with its span."""
    clean = plain(text)
    return [words for c in re.finditer(r"[^,.;:!?|\n\r\"\u201c\u201d()]+", clean)
            if (words := [(w[0].lower().replace("\u2019", "'")[:LONGEST], (c.start() + w.start(), c.start() + w.end())) for w in WORD.finditer(c[0])])]


def tagged(words: list[tuple[str, Span]]) -> list[Word]:
    """With tags; a form in -ing that the tagger's lexicon lacks may be a verb."""
    hanta, out = tagger(), []
    for (text, span), tag in zip(words, hanta.tag_sent([t for t, _ in words], taglevel=0, casesensitive=False)):
        as_verb = tag if tag.startswith("VV") else "VVG" if text.endswith("ing") else "VVZ" if text.endswith("s") else "VVB"
        found = hanta.tag_word(text, cutoff=6, casesensitive=False)
        guessed = found[0][1] < GUESSED and text.endswith("ing")
        out.append(Word(text, span, tag, frozenset([t for t, _ in found] + ["VVG"] * int(guessed)), hanta.analyze(text, pos=as_verb)[0]))
    return out


def head_after(words: list[Word], i: int) -> str | None:
    """The noun that word i stands before, with adjectives and other nouns between ("a flying red dragon": dragon), or None."""
    head = None
    for w in words[i + 1:]:
        if w.noun:
            head = w.text
        elif head or w.tag not in ("AJ0", "AJC", "AJS"):
            break
    return head


def one_of(noun: str, nouns: frozenset[str]) -> bool:
    return noun in nouns or noun.removesuffix("s") in nouns or noun.removesuffix("es") in nouns


def before(words: list[Word], i: int) -> Word | None:
    """The word before i, adverbs left out."""
    return next((w for w in reversed(words[:i]) if w.tag not in ("AV0", "AVP", "XX0")), None)


def ing_moves(words: list[Word], i: int) -> bool:
    """For a form in -ing: is it a verb at all, and when it stands before a noun, does the noun move or serve?"""
    w, previous = words[i], before(words, i)
    if previous and previous.tag.startswith("VB"):  # is dancing
        return True
    head = head_after(words, i)
    if w.text in NAMED_ING and (w.tag != "VVG" or previous is None and not head):  # "an oil painting", "painting by Monet"
        return False
    attributive = head and (previous is None or not previous.noun and not previous.tag.startswith("VV") or w.tag != "VVG")
    if attributive:
        if one_of(head, CREATURES):
            return True
        if w.text in PURPOSE or one_of(head, FOR_USE):
            return False
        return w.tag != "NN1" or one_of(head, MOVERS) or len(words) == 2  # the tag "playing guitar" is a verb with its object
    return not (w.tag == "NN1" and previous and previous.tag in BEFORE_NOUN)  # "a clearing", "the old painting"


def has_subject(words: list[Word], i: int, after_verb: bool) -> bool:
    """Can word i be a finite verb here: something before it can be its subject, and it does not stand in a noun's place."""
    previous = before(words, i)
    if previous is None:
        return after_verb and words[i].tag == "VVZ"  # a dog runs, jumps over a fence
    return previous.tag not in BEFORE_NOUN and previous.text != "her" and any(w.noun or w.tag.startswith("PN") for w in words[:i])


def plural_is_verb(words: list[Word], i: int) -> bool:
    """For a word in -s that the tagger takes for a plural, after a singular noun: does the sentence need it as its verb?"""
    start = i - 1  # where the nouns and adjectives before it begin
    while start and (words[start - 1].noun or words[start - 1].tag in ("AJ0", "CRD")):
        start -= 1
    opening = words[start - 1].text if start else ""
    verbs = [v for v in words if v.tag in FINITE or v.tag.startswith(("VB", "VM"))]
    if start > 1 and words[start - 2].tag in ("CJS", "AVQ") and not [v for v in verbs if v.span > words[start - 2].span]:
        return True  # "while the crowd cheers": a subordinate clause has a verb
    if "VVZ" not in words[i].readings:
        return False
    if opening in ("a", "an", "one", "each", "every", "this", "that"):
        return True  # "a bear skates": a singular article cannot belong to a plural
    following = words[i + 1].tag if i + 1 < len(words) else ""
    return opening in ("the", "his", "her", "its", "my", "their") and start == 1 and not verbs and following in ("PRP", "AVP", "AV0")  # "the flag waves in"


def noun_is_verb(words: list[Word], i: int) -> bool:
    """Words that the tagger takes for nouns although they follow their subject: "a bear skates in", "two cats fight", "seagulls circle above"."""
    w, previous, following = words[i], words[i - 1] if i else None, words[i + 1] if i + 1 < len(words) else None
    if not previous or not previous.noun or following and (following.noun or following.tag.startswith("AJ")):
        return False
    if w.tag == "NN2":
        return previous.tag in ("NN1", "NN0", "NP0") and plural_is_verb(words, i)
    after_plural = previous.tag == "NN2" and previous.text not in ("sports", "times", "goods") or previous.text == "people"  # hardly ever a compound
    return w.tag == "NN1" and after_plural and bool(w.readings & {"VVB", "VVI"}) and (following is None or following.tag not in ("CJC", "PRF"))


def moves(words: list[Word], i: int, after_verb: bool) -> bool:
    """Is word i of a clause a motion word? after_verb: the clause before it, in the same sentence, has a finite verb."""
    w, previous = words[i], before(words, i)
    if w.tag == "VVN" or w.tag == "VVD" and i + 1 < len(words) and words[i + 1].text in ("by", "with"):
        return w.stem in MOVED or bool(previous and previous.tag == "VBG" and w.stem not in NOT_MOTION)
    if w.stem in NOT_MOTION or previous and previous.text in CAMERA:
        return False
    if w.text.endswith("ing") and w.tag in ("VVG", "AJ0", "NN1", "NP0", "VVB", "VVI"):
        return w.tag in ("VVB", "VVI") and has_subject(words, i, after_verb) or "VVG" in w.readings and ing_moves(words, i)
    if w.tag == "VVI" and previous and previous.tag in ("TO0", "VM0", "VDB", "VDZ", "VDD"):  # to run, can run, does run
        return True
    if w.tag in FINITE or w.tag == "VVI":
        return has_subject(words, i, after_verb)
    return noun_is_verb(words, i)


def find_motion(text: str) -> list[Span]:
    """Spans of the prompt's motion words, in its order; [] when there are none. Raises TaggerMissing."""
    spans, after_verb = [], False
    for clause in clauses(text):
        words = tagged(clause)
        motion = [w for i, w in enumerate(words) if moves(words, i, after_verb)]
        spans += [w.span for w in motion]
        after_verb = any(w.tag in FINITE for w in words) or any(not w.text.endswith("ing") for w in motion)
    return spans
