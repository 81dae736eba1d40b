"""Choices of an input 'stages': the parts of the UNet."""
from ..attention_patches.unet import STAGES

STAGE_CHOICES = {"all": STAGES, **{stage: (stage,) for stage in STAGES}, "input + middle": STAGES[:2], "middle + output": STAGES[1:], "input + output": STAGES[::2]}
