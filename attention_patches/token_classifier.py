"""A token-classification model of Hugging Face's kind, from a folder of the user's, as the finder of motion words (the paper fine-tuned a BERT)."""
from pathlib import Path

import torch

from .prompt_text import WORD, Span, plain

NOTHING = ("O", "LABEL_0")


def motion_labels(labels) -> set[str]:
    """Which of a model's labels mean motion: verbs where it is a part-of-speech tagger (universal or Penn tags), else all but O and LABEL_0."""
    labels = set(labels)
    verbs = {label for label in labels if label == "VERB" or label.startswith("VB")}
    return verbs or labels - set(NOTHING)


def load(folder: Path):
    """(tokenizer, model) from the folder alone, weights as safetensors only. Raises ValueError for a folder that holds no such model."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        model = AutoModelForTokenClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"The folder {folder.name!r} holds no token-classification model that transformers can read: {str(error).splitlines()[0]} "
                         f"Expected config.json, model.safetensors and the tokenizer's files in it.") from error
    return tokenizer, model.eval()


@torch.no_grad()
def find_motion(text: str, folder: Path) -> list[Span]:
    """Spans of the prompt's words whose first token the model labels as motion, in their order. Raises ValueError as `load`."""
    tokenizer, model = load(folder)
    clean = plain(text)
    encoded = tokenizer(clean, return_tensors="pt", return_offsets_mapping=True, truncation=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    labels = [model.config.id2label[int(i)] for i in model(**encoded).logits[0].argmax(-1)]
    motion = motion_labels(model.config.id2label.values())
    first = {start: label for (start, end), label in reversed(list(zip(offsets, labels))) if end > start}
    return [w.span() for w in WORD.finditer(clean) if first.get(w.start()) in motion]
