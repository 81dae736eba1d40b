"""Attention with relative positions, against Shaw et al.'s two equations in loops, on whatever attention the host uses."""
import comfy.ops
import pytest
import torch
from comfy.ldm.modules import attention as host
from firstframe.networks.relative_positions import RelativeAttention, attend, rows
from firstframe.tests import tiny_models as tiny

F, H, D, N = 6, 2, 8, 3  # more tokens than the tables tell apart


def drawn(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow(q, k, v, table_k, table_v) -> torch.Tensor:
    """One head [f,d], Eq. 3 and 4."""
    z = torch.zeros_like(q)
    for i in range(F):
        at = [min(max(j - i, -N), N) + N for j in range(F)]
        e = torch.stack([q[i] @ (k[j] + table_k[at[j]]) / D**0.5 for j in range(F)])
        for j, weight in enumerate(e.softmax(0)):
            z[i] += weight * (v[j] + table_v[at[j]])
    return z


@pytest.mark.parametrize("name", ["attention_pytorch", "attention_basic", "attention_split", "attention_sub_quad"])
def test_it_is_both_equations(name):
    q, k, v = drawn(3, 4, F, H, D)
    tables = drawn(2, 2 * N + 1, D, seed=1)
    found = attend(q, k, v, *tables[:, rows(F, N)], getattr(host, name))
    for p in range(4):
        for h in range(H):
            assert tiny.difference(found[p, :, h], slow(q[p, :, h], k[p, :, h], v[p, :, h], *tables)) <= 1e-5


def layer(tables: torch.Tensor) -> RelativeAttention:
    made = dict(query_dim=H * D, heads=H, dtype=torch.float32, device=tiny.CPU, operations=comfy.ops.manual_cast)
    net = RelativeAttention(N, D, **made).eval().requires_grad_(False)
    for i, parameter in enumerate(net.parameters()):
        parameter.copy_(drawn(*parameter.shape, seed=i))
    net.relative_position_k.embeddings_table.copy_(tables[0])
    net.relative_position_v.embeddings_table.copy_(tables[1])
    return net


def test_each_table_counts_and_zero_is_the_hosts_own():
    x, zero, tables = drawn(4, F, H * D), torch.zeros(2, 2 * N + 1, D), drawn(2, 2 * N + 1, D, seed=1)
    whole = layer(tables)(x, {})
    plain = layer(zero)
    assert tiny.difference(plain(x, {}), host.CrossAttention.forward(plain, x)) <= 1e-5
    for off in (0, 1):
        assert tiny.difference(layer(torch.stack([zero[i] if i == off else tables[i] for i in (0, 1)]))(x, {}), whole) > 0.01


def test_another_packs_attention_is_asked():
    seen = []
    options = {"optimized_attention_override": lambda function, *args, **kwargs: seen.append(args[0].shape) or function(*args, **kwargs)}
    layer(drawn(2, 2 * N + 1, D))(drawn(4, F, H * D), options)
    assert seen == [(4, F, H * (D + F))]


def test_half_precision_rounds_no_more_than_the_hosts_own():
    x, tables = drawn(4, F, H * D), drawn(2, 2 * N + 1, D, seed=1)
    net, plain = layer(tables), layer(torch.zeros_like(tables))
    errors = [tiny.difference(run(x.bfloat16()).float(), run(x)) for run in (lambda x: net(x, {}), lambda x: host.CrossAttention.forward(plain, x))]
    assert errors[0] < 2 * errors[1] < 0.1
