"""Which columns of a prompt's embedding are motion words: the value of the MOTION_TOKENS wire."""
from dataclasses import dataclass


@dataclass(frozen=True)
class MotionTokens:
    """positions: columns of the conditioning's token axis; length: how many columns that axis has; words: what they say, for people."""

    positions: tuple[int, ...]
    length: int
    words: tuple[str, ...]
