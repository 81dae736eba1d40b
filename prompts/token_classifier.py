"""A token-classification model of Hugging Face's kind, from a folder of the user's, as the finder of motion words (the paper fine-tuned a BERT)."""
import textwrap
from contextlib import contextmanager
from pathlib import Path

import torch

from .text import WORD, Span, plain

NOTHING = ("O", "LABEL_0")


def motion_labels(labels) -> set[str]:
    """Which of a model's labels mean motion: verbs where it is a part-of-speech tagger (universal or Penn tags), else all but O and LABEL_0."""
    labels = set(labels)
    verbs = {label for label in labels if label == "VERB" or label.startswith("VB")}
    return verbs or labels - set(NOTHING)


def first_line(error: Exception) -> str:
    """What a library says, short, and without its advice to run what the folder brings."""
    if "trust_remote_code" in str(error):
        return "It needs code of its own, which is not run."
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return textwrap.shorten(line, 200, placeholder=" ...").rstrip(".:") + "."


@contextmanager
def blamed_on(folder: Path):
    """Turns any exception meanwhile, all of which stem from what is in the folder, into a sentence about it."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"The folder {folder.name!r} holds no token-classification model that transformers can read: {first_line(error)} "
                         f"Expected config.json, model.safetensors and the tokenizer's files in it.") from error


def load(folder: Path):
    """(tokenizer, model) from the folder alone, weights as safetensors only. Raises ValueError for a folder that holds no such model."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer
    options = dict(local_files_only=True, trust_remote_code=False)
    with blamed_on(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, **options)
        model, found = AutoModelForTokenClassification.from_pretrained(folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options)
        for what, keys in (("lacks", found["missing_keys"]), ("has another shape than config.json says of", [key for key, *_ in found["mismatched_keys"]])):
            if keys:  # transformers would fill them at random
                raise ValueError(f"model.safetensors {what} {min(keys)} (and {len(keys) - 1} more)")
        labels = model.config.id2label
        if not all(isinstance(labels.get(i), str) for i in range(model.num_labels)) or not motion_labels(labels.values()):
            raise ValueError(f"config.json names {list(labels.values())} (id2label), expected a name for each label and one that means motion")
    return tokenizer, model.eval()


@torch.no_grad()
def find_motion(text: str, folder: Path) -> list[Span]:
    """Spans of the prompt's words whose first token the model labels as motion, in their order. Raises ValueError as `load`."""
    tokenizer, model = load(folder)
    clean = plain(text)
    with blamed_on(folder):
        encoded = tokenizer(clean, return_tensors="pt", return_offsets_mapping=True, truncation=True)
        offsets = encoded.pop("offset_mapping")[0].tolist()
        if encoded["input_ids"].max() >= (words := model.get_input_embeddings().num_embeddings):
            raise ValueError(f"its tokenizer has more words than the {words} of its model")
        logits = model(**encoded).logits[0]
        if not logits.isfinite().all():
            raise ValueError("its weights give NaN or infinity")
        labels = [model.config.id2label[int(i)] for i in logits.argmax(-1)]
    motion = motion_labels(model.config.id2label.values())
    first = {start: label for (start, end), label in reversed(list(zip(offsets, labels))) if end > start}
    return [w.span() for w in WORD.finditer(clean) if first.get(w.start()) in motion]
