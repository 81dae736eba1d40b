"""Whether a picture could be one of the demo world's, which is all that its tiny model can hold."""
import numpy as np

from .judge import NEAR, judge, line_distance

BACKGROUND, COLOUR = 0.97, 0.15  # least share of the background's pixels in its colour; most that a shape's pixels stray from theirs, RGB


def belongs(image) -> bool:
    """image [H,W,3], RGB in 0..1: one or two shapes that the world has, each of one colour, on a background of one colour or its shades."""
    image = np.asarray(image, np.float32)
    seen = judge(image)
    if not 1 <= len(seen.shapes) <= 2 or any(s.name is None for s in seen.shapes):
        return False
    distance, _ = line_distance(image, np.array(seen.rgb, np.float32))
    strays = [np.linalg.norm(image[s.mask] - s.rgb, axis=-1).mean() for s in seen.shapes]
    return (distance[seen.background] < NEAR).mean() > BACKGROUND and max(strays) < COLOUR
