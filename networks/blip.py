"""ImageReward's network: BLIP's encoders of pictures and of text, and the layers that make one number of what they say. Module names are those of the published file.

transformers has the two encoders (BlipVisionModel, BlipTextModel), but its layers cannot be the host's, which are cast and offloaded; tests compare with them.
Axes: b pictures, n tokens of a picture, l tokens of the prompt, D and W the widths of the two.
"""
import math
from dataclasses import dataclass
from functools import partial

import torch
from comfy.ops import cast_to_input
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

DIM_HEAD = 64  # in the published file, of both encoders; not to be told from the keys
READOUT = (1024, 128, 64, 16, 1)


@dataclass(frozen=True)
class BlipSize:
    """places: tokens of a picture, n; the text's sizes come second."""

    patch: int
    places: int
    width: int
    hidden: int
    depth: int
    vocabulary: int
    positions: int
    text_width: int
    text_hidden: int
    text_depth: int
    dim_head: int = DIM_HEAD

    @property
    def side(self) -> int:
        """Of a picture, in pixels."""
        return self.patch * math.isqrt(self.places - 1)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dim_head: int) -> torch.Tensor:
    q, k, v = (t.unflatten(-1, (-1, dim_head)).transpose(1, 2) for t in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class VisualBlock(nn.Module):
    def __init__(self, size: BlipSize, linear, norm):
        super().__init__()
        self.dim_head, width = size.dim_head, size.width
        self.norm1, self.norm2 = norm(width, eps=1e-6), norm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": linear(width, 3 * width), "proj": linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": linear(width, size.hidden), "fc2": linear(size.hidden, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn["proj"](attend(*self.attn["qkv"](self.norm1(x)).chunk(3, -1), self.dim_head))
        return x + self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(x))))


class VisualEncoder(nn.Module):
    """[b,3,side,side] -> [b,n,D]: a ViT whose last norm goes over all tokens."""

    def __init__(self, size: BlipSize, linear, norm, conv, made: dict):
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.width, **made))
        self.pos_embed = nn.Parameter(torch.empty(1, size.places, size.width, **made))
        self.patch_embed = nn.ModuleDict({"proj": conv(3, size.width, size.patch, stride=size.patch)})
        self.blocks = nn.ModuleList(VisualBlock(size, linear, norm) for _ in range(size.depth))
        self.norm = norm(size.width, eps=1e-6)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([cast_to_input(self.cls_token, x).expand(len(x), -1, -1), x], 1) + cast_to_input(self.pos_embed, x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class TextAttention(nn.Module):
    """Of the prompt over itself, or over a picture's tokens; the sum with what came in is normed."""

    def __init__(self, width: int, seen: int, dim_head: int, linear, norm):
        super().__init__()
        self.dim_head = dim_head
        self.add_module("self", nn.ModuleDict({"query": linear(width, width), "key": linear(seen, width), "value": linear(seen, width)}))
        self.output = nn.ModuleDict({"dense": linear(width, width), "LayerNorm": norm(width, eps=1e-12)})

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        own = self.get_submodule("self")
        return self.output["LayerNorm"](x + self.output["dense"](attend(own["query"](x), own["key"](seen), own["value"](seen), self.dim_head)))


class TextLayer(nn.Module):
    def __init__(self, size: BlipSize, linear, norm):
        super().__init__()
        width = size.text_width
        self.attention = TextAttention(width, width, size.dim_head, linear, norm)
        self.crossattention = TextAttention(width, size.width, size.dim_head, linear, norm)
        self.intermediate = nn.ModuleDict({"dense": linear(width, size.text_hidden)})
        self.output = nn.ModuleDict({"dense": linear(size.text_hidden, width), "LayerNorm": norm(width, eps=1e-12)})

    def forward(self, x: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        x = self.crossattention(self.attention(x, x), picture)
        return self.output["LayerNorm"](x + self.output["dense"](gelu(self.intermediate["dense"](x))))


class TextEncoder(nn.Module):
    """(ids [b,l], a picture's tokens [b,n,D]) -> [b,l,W]: a BERT that sees the picture in every layer. Without padding, so that it needs no mask."""

    def __init__(self, size: BlipSize, linear, norm, embedding):
        super().__init__()
        self.embeddings = nn.ModuleDict({"word_embeddings": embedding(size.vocabulary, size.text_width), "position_embeddings": embedding(size.positions, size.text_width),
                                         "LayerNorm": norm(size.text_width, eps=1e-12)})
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(TextLayer(size, linear, norm) for _ in range(size.text_depth))})

    def forward(self, ids: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.embeddings["word_embeddings"](ids, out_dtype=picture.dtype) + self.embeddings["position_embeddings"](places, out_dtype=picture.dtype)
        x = self.embeddings["LayerNorm"](x)
        for layer in self.encoder["layer"]:
            x = layer(x, picture)
        return x


class Blip(nn.Module):
    """(pixels [b,3,side,side], ids [b,l]) -> [b]: ImageReward before it is normed."""

    def __init__(self, size: BlipSize, dtype=None, device=None, operations=None):
        super().__init__()
        made = dict(dtype=dtype, device=device)
        linear, norm, conv, embedding = (partial(layer, **made) for layer in (operations.Linear, operations.LayerNorm, operations.Conv2d, operations.Embedding))
        self.blip = nn.ModuleDict({"visual_encoder": VisualEncoder(size, linear, norm, conv, made), "text_encoder": TextEncoder(size, linear, norm, embedding)})
        a, b, c, d = (linear(*ends) for ends in zip((size.text_width, *READOUT), READOUT[:4]))
        gap = nn.Identity  # dropout in training; nothing else stands between the layers
        self.mlp = nn.ModuleDict({"layers": nn.Sequential(a, gap(), b, gap(), c, gap(), d, linear(*READOUT[3:]))})

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        said = self.blip["text_encoder"](ids, self.blip["visual_encoder"](pixels))
        return self.mlp["layers"](said[:, 0])[:, 0]


def size_of(shape, dim_head: int = DIM_HEAD) -> BlipSize:
    """By keys and shapes, as `image_projection.size_of`. Sizes may contradict other weights: those are compared with what the size asks for."""
    def count(key):
        found = 0
        while shape(key.format(found)):
            found += 1
        return max(1, found)

    see, read = "blip.visual_encoder.", "blip.text_encoder."
    hidden, width = shape(see + "blocks.0.mlp.fc1.weight", 2)
    vocabulary, text_width = shape(read + "embeddings.word_embeddings.weight", 2)
    return BlipSize(shape(see + "patch_embed.proj.weight", 4)[3], shape(see + "pos_embed", 3)[1], width, hidden, count(see + "blocks.{}.mlp.fc1.weight"), vocabulary,
                    shape(read + "embeddings.position_embeddings.weight", 2)[0], text_width, shape(read + "encoder.layer.0.intermediate.dense.weight", 2)[0],
                    count(read + "encoder.layer.{}.intermediate.dense.weight"), dim_head)
