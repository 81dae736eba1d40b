"""What scores pictures by a prompt, and what all that do so have in common.

Pictures are scored one at a time, so that the score of one does not depend on the others: in a batch of another size the same layer rounds otherwise.
"""
import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy.sd1_clip import escape_important, token_weights, unescape_important
from PIL import Image
from torch import nn

LOADER = "Load Reward Model"
MEAN, STD = (torch.tensor(rgb)[:, None, None] for rgb in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))  # CLIP's and BLIP's


class RewardModel:
    """What REWARD_MODEL wires carry: says of each picture how well it fits a prompt; higher is better. Scores of two models are not comparable.

    name: says what it is. A model of its own defines `read`, called once for a prompt, and `score`, called for each picture.
    """

    name: str

    def read(self, prompt: str, who: str):
        """The prompt as `score` takes it, with the model on its device."""
        raise NotImplementedError

    def score(self, picture: torch.Tensor, prompt) -> torch.Tensor:
        """Of one picture [1,h,w,3], a tensor of one number."""
        raise NotImplementedError

    @torch.no_grad()
    def scores(self, images: torch.Tensor, prompt: str, who: str) -> torch.Tensor:
        """Of every picture of [N,h,w,3] in 0..1: [N] in float32 on the CPU; NaN for a picture that holds NaN or infinity, and where the model gives that.

        Raises ValueError for what is no picture, without a prompt, and where no score is a number. who: the node that asks.
        """
        check(images, prompt, who)
        read, found, bar = self.read(prompt, who), [], comfy.utils.ProgressBar(len(images))
        for picture in images[..., :3].float().split(1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            found.append(self.score(picture, read).reshape(1).float().cpu() if torch.isfinite(picture).all() else torch.full((1,), torch.nan))
            bar.update(1)
        scores = torch.cat(found)
        scores = torch.where(torch.isfinite(scores), scores, torch.nan)
        if scores.isnan().all():
            raise ValueError(f"{who}: {self.name} gives NaN or infinity for {len(scores)} of {len(scores)} pictures. Its weights are damaged: fetch the file again.")
        return scores


def check_prompt(prompt: str, who: str) -> None:
    """Raises ValueError for an empty one."""
    if not prompt.strip():
        raise ValueError(f"{who} needs a prompt: it scores how well a picture fits one. Type what the picture should show.")


def check(images: torch.Tensor, prompt: str, who: str) -> None:
    if images.ndim != 4 or images.shape[-1] < 3 or not images.numel() or not torch.isfinite(images).flatten(1).all(1).any():
        what = "one with NaN or infinite values" if images.ndim == 4 and images.numel() and images.shape[-1] > 2 else f"one of {list(images.shape)}"
        raise ValueError(f"{who} needs pictures [number, height, width, 3], got {what}. Look at the node that made them.")
    check_prompt(prompt, who)


def plain(prompt: str) -> str:
    """The prompt's words without the host's emphasis: (red:1.2) is red, which reward models were not trained to read otherwise."""
    return "".join(unescape_important(words) for words, _ in token_weights(escape_important(prompt), 1.0))


def pixels(picture: torch.Tensor, side: int) -> torch.Tensor:
    """[1,h,w,3] in 0..1 -> [1,3,side,side]: the shorter side resized to `side`, its middle cut out, normed. On 8-bit pixels with PIL's bicubic filter, as the models' own code does.

    The middle is torchvision's (ImageReward, HPSv2); transformers' (PickScore) lies one pixel before it for a quarter of all sizes.
    """
    image = Image.fromarray((picture[0].clamp(0, 1) * 255).round().byte().cpu().numpy())
    w, h = (int(side * n / min(image.size)) for n in image.size)
    left, top = round((w - side) / 2), round((h - side) / 2)
    cut = np.array(image.resize((w, h), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side)))
    return ((torch.from_numpy(cut).permute(2, 0, 1).float() / 255 - MEAN) / STD)[None]


def shapes(make) -> dict[str, torch.Size]:
    """Of a network's weights, from torch's own layers: the host's have none before they are loaded where they load lazily."""
    with torch.device("meta"):  # some layers of the host's CLIP take no device
        return {name: weight.shape for name, weight in make(device="meta", operations=nn).state_dict().items()}


def again(read, found, name: str) -> dict:
    """The weights for another copy. read() -> (weights, whatever tells the size). Raises ValueError when the file is another one by now."""
    weights, *now = read()
    if now != found:
        raise ValueError(f"{LOADER} read {name!r}, which has been replaced by another file since. Give that one a name of its own, press R and choose it.")
    return weights
