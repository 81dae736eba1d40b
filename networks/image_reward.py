"""ImageReward (Xu et al. 2023): how well a picture fits a prompt by what people preferred. Reading its file and vocabulary; its score.

med_config.json, which is published beside the file, is not needed: every size in it can be told from the weights.
"""
import math
from dataclasses import dataclass
from functools import partial

import comfy.model_management
import comfy.model_patcher
import torch
from tokenizers import BertWordPieceTokenizer

from .blip import DIM_HEAD, Blip, BlipSize, size_of
from .files import Reader
from .patcher import in_patcher
from .reward import LOADER, RewardModel, again, pixels, plain, shapes

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the scores, in the authors' code
LONGEST = 35  # tokens of a prompt
OWN_TOKENS = 2  # [DEC] and [ENC], which BLIP adds behind BERT's; neither is used here
VOCABULARY = "vocab.txt"
FETCH = f"Fetch {VOCABULARY} of bert-base-uncased and put it beside the file or into models/reward_models."


@dataclass(frozen=True)
class ImageReward(RewardModel):
    """patcher: the host's, around a Blip of `size`. tokenizer: BERT's."""

    patcher: comfy.model_patcher.ModelPatcher
    size: BlipSize
    tokenizer: BertWordPieceTokenizer
    name: str = "ImageReward"

    def read(self, prompt: str, who: str) -> torch.Tensor:
        """[1,l]: [CLS], the prompt's first 33 tokens, [SEP]."""
        comfy.model_management.load_models_gpu([self.patcher])
        ids = self.tokenizer.encode(plain(prompt)).ids
        return torch.tensor([ids[:LONGEST - 1] + ids[-1:] if len(ids) > LONGEST else ids], device=self.patcher.load_device)

    def score(self, picture: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        return (self.patcher.model(pixels(picture, self.size.side).to(self.patcher.load_device), prompt) - MEAN) / STD


def look(sd: dict, says: Reader, dim_head: int = DIM_HEAD) -> tuple[dict, BlipSize]:
    """(weights, size). Raises ValueError unless every weight of the network is there. Others, of the training, are left."""
    size = size_of(partial(says.shape, sd), dim_head)
    if size.width % dim_head or size.places < 2 or size.places != math.isqrt(size.places - 1) ** 2 + 1:
        raise says.refuse(f"pictures of width {size.width} and {size.places} places", f"Expected a multiple of {dim_head}, and a square and 1.")
    if size.text_width % dim_head or size.positions < LONGEST:
        raise says.refuse(f"text of width {size.text_width} and {size.positions} places", f"Expected a multiple of {dim_head}, and at least {LONGEST} places.")
    wanted = shapes(partial(Blip, size))
    weights = {key: value for key, value in sd.items() if key in wanted}
    says.check_weights(weights, wanted)
    return weights, size


def tokenizer(path: str | None, rows: int, says: Reader) -> BertWordPieceTokenizer:
    """BERT's, of the vocabulary in a file. Raises ValueError for none, or one of another model. rows: how many tokens the network knows."""
    if path is None:
        raise ValueError(f"{LOADER} needs the vocabulary of ImageReward beside {says.name!r}. {FETCH}")
    try:
        with open(path, encoding="utf-8") as file:
            words = {word.rstrip("\n"): n for n, word in enumerate(file)}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{LOADER} cannot read {VOCABULARY} for {says.name!r}: it is no text. {FETCH}") from error
    if len(words) + OWN_TOKENS != rows or not {"[CLS]", "[SEP]", "[UNK]"} <= words.keys():
        raise ValueError(f"{LOADER} expected {rows - OWN_TOKENS} different words, [CLS], [SEP] and [UNK] among them, in {VOCABULARY} for {says.name!r}, found {len(words)}. {FETCH}")
    return BertWordPieceTokenizer(words)


def image_reward(sd: dict, read, says: Reader, vocabulary: str | None, dim_head: int = DIM_HEAD) -> ImageReward:
    """The network of a file's tensors in the host's patcher, not yet on any device. read(): the tensors again; vocabulary: the path of vocab.txt."""
    weights, size = look(sd, says, dim_head)
    words = tokenizer(vocabulary, size.vocabulary, says)
    return ImageReward(in_patcher(partial(Blip, size), weights, partial(again, lambda: look(read(), says, dim_head), [size], says.name)), size, words)
