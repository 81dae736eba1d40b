"""Reward models' files: which of the kinds one is of, by its keys."""
from .clip_reward import clip_reward
from .files import CLIP_REWARD, IMAGE_REWARD, Reader, kind_of, tensors_of
from .image_reward import image_reward
from .reward import LOADER, RewardModel


def reward_model(source, name: str, vocabulary=lambda: None) -> RewardModel:
    """The file's model in the host's patcher, not yet on any device. Raises ValueError for another kind of file, or an incomplete one.

    source: a function that reads the file's tensors, each time that the host needs another copy; or the tensors, which are then kept.
    vocabulary(): the path of vocab.txt, which ImageReward needs; None if there is none.
    """
    def read():
        return tensors_of(source() if callable(source) else source)

    sd, says = read(), Reader(LOADER, "ImageReward, PickScore or HPSv2", name)
    if kind_of(sd) is CLIP_REWARD:
        return clip_reward(sd, read, says)
    says.check_kind(sd, IMAGE_REWARD)
    return image_reward(sd, read, says, vocabulary())
