"""Self-attention that knows how far apart its tokens are (Shaw et al. 2018, Eq. 3 and 4), which VideoCrafter 1 has along the frames.

    e_ij = q_i (k_j + a^K_ij) / sqrt(d)        z_i = sum_j softmax_j(e_ij) (v_j + a^V_ij)        a_ij = table[clip(j - i, -n, n) + n]

Attention without positions gives the same where each head has f channels more: the numbers q_i a^K_ij beside q_i, row j of the unit matrix beside k_j and v_j. Its scores
are then e_ij, and beside its sum of v_j stand the weights that a^V_ij is summed with. So the host's attention does it, whichever that is.

Axes: p sequences, f tokens (i, j), h heads, d channels of a head; n: the farthest distance with a row of its own.
"""
import torch
from comfy.ldm.modules.attention import CrossAttention, optimized_attention
from comfy.ops import cast_to_input
from torch import nn


def rows(tokens: int, n: int, device=None) -> torch.Tensor:
    """[f,f]: the table's row for each i and j."""
    at = torch.arange(tokens, device=device)
    return (at[None, :] - at[:, None]).clamp(-n, n) + n


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, a_k: torch.Tensor, a_v: torch.Tensor, attention) -> torch.Tensor:
    """z [p,f,h,d] of q, k, v [p,f,h,d] and a [f,f,d]. attention(q, k, v, heads): of [p,f,h*c], with scores divided by sqrt(c)."""
    f, h, d = q.shape[1:]
    unit = torch.eye(f, dtype=q.dtype, device=q.device)[:, None].expand(*q.shape[:3], f)
    near = torch.einsum("pihd,ijd->pihj", q, a_k)
    q = torch.cat([q, near], -1) * ((d + f) / d) ** 0.5
    out = attention(q.flatten(2), torch.cat([k, unit], -1).flatten(2), torch.cat([v, unit], -1).flatten(2), h)
    z, weights = out.unflatten(-1, (h, d + f)).split([d, f], -1)
    return z + torch.einsum("pihj,ijd->pihd", weights, a_v)


class RelativePosition(nn.Module):
    """The published name of a table [2n+1,d]."""

    def __init__(self, n: int, d: int, dtype=None, device=None):
        super().__init__()
        self.embeddings_table = nn.Parameter(torch.empty(2 * n + 1, d, dtype=dtype, device=device))


class RelativeAttention(CrossAttention):
    """The host's, of tokens to themselves, with positions."""

    def __init__(self, n: int, d: int, dtype=None, device=None, **rest):
        super().__init__(dtype=dtype, device=device, dim_head=d, **rest)
        self.n = n
        self.relative_position_k, self.relative_position_v = (RelativePosition(n, d, dtype, device) for _ in range(2))

    def forward(self, x: torch.Tensor, transformer_options: dict) -> torch.Tensor:
        """x [p,f,h*d]."""
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in (self.to_q, self.to_k, self.to_v))
        at = rows(x.shape[1], self.n, x.device)
        a_k, a_v = (cast_to_input(net.embeddings_table, q)[at] for net in (self.relative_position_k, self.relative_position_v))

        def attention(q, k, v, heads):
            return optimized_attention(q, k, v, heads, attn_precision=self.attn_precision, transformer_options=transformer_options)

        return self.to_out(attend(q, k, v, a_k, a_v, attention).flatten(2))
