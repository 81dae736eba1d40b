"""Pictures of several sizes beside each other, each with a label."""
import math

import torch
from PIL import Image, ImageDraw, ImageFont

SIDE, LINE, GAP = 256, 20, 6  # pixels: a picture's longer side at most, a label's height, between them


def contact_sheet(images: list[torch.Tensor], labels: list[str]) -> torch.Tensor:
    """[1,H,W,3] in 0..1, row by row, of images [1,h,w,3]."""
    columns = math.ceil(len(images) ** 0.5)
    cell = SIDE + GAP, SIDE + LINE + GAP
    sheet = Image.new("RGB", (columns * cell[0], math.ceil(len(images) / columns) * cell[1]), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=LINE - 6)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        picture = Image.fromarray((255 * image[0].cpu().float().nan_to_num().clamp(0, 1)).round().to(torch.uint8).numpy())
        picture.thumbnail((SIDE, SIDE))
        x, y = i % columns * cell[0], i // columns * cell[1]
        sheet.paste(picture, (x, y))
        draw.text((x + 2, y + SIDE + 2), label, "black", font)
    return torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(1, sheet.height, sheet.width, 3) / 255
