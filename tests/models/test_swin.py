import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from condic.models.resample import Downscale  # noqa: E402
from condic.models.swin import SwinBlock, SwinStage, relative_position_index  # noqa: E402


def rolled(block: SwinBlock, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Shifted-window attention as the Swin paper has it: the image is rolled, and what met at the edges masked."""
    b, h, w, c = x.shape
    side, shift, heads = block.window, block.shift, block.attn.relative_position_bias_table.shape[1]
    asking, answering = (features, block.norm1(x)) if block.query == "condition" else (block.norm1(x), features)
    query, (key, value) = block.attn.q(asking), block.attn.kv(answering).chunk(2, dim=-1)

    def windows(t: torch.Tensor) -> torch.Tensor:
        t = torch.roll(t, (-shift, -shift), (1, 2)).view(b, h // side, side, w // side, side, -1)
        return t.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, t.shape[-1])

    region = torch.zeros(1, h, w, 1)
    for i, rows in enumerate((slice(0, -side), slice(-side, -shift), slice(-shift, None))):
        for j, columns in enumerate((slice(0, -side), slice(-side, -shift), slice(-shift, None))):
            region[:, rows, columns] = 3 * i + j
    region = torch.roll(region, (shift, shift), (1, 2))  # `windows` rolls it back
    region = windows(region.expand(b, -1, -1, -1)).squeeze(-1)
    apart = (region[:, :, None] != region[:, None]) * -1e9
    q, k, v = (windows(t).unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + block.attn.position() + apart[:, None]
    out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, h // side, w // side, side, side, c)
    out = torch.roll(out.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c), (shift, shift), (1, 2))
    x = x + block.attn.proj(out)
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize("query", ["condition", "image"])
@pytest.mark.parametrize("size", [(4, 4), (8, 12), (20, 4)])
def test_a_shifted_block_equals_rolling_and_masking_at_any_size(query, size):
    torch.manual_seed(0)
    block = SwinBlock(8, 2, 4, 2.0, shifted=True, query=query)
    x, features = torch.randn(2, *size, 8), torch.randn(2, *size, 8)
    torch.testing.assert_close(block(x, features), rolled(block, x, features), rtol=1e-4, atol=1e-5)


def test_the_position_bias_depends_on_where_two_pixels_are_to_each_other():
    index = relative_position_index(3)
    assert index[0, 4] == index[4, 8] != index[4, 0]  # one down and right of the other, twice; the other way round
    assert index.min() == 0
    assert index.max() == 24


def test_windows_do_not_see_each_other_before_the_shift_and_neighbours_after_it():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 4, 24, requires_grad=True)

    def reach(depth: int) -> list[bool]:
        (gradient,) = torch.autograd.grad(SwinStage(8, depth, 2, 4)(x)[..., 8:12].square().sum(), x)
        return [bool(gradient[..., k : k + 4].abs().max() > 0) for k in range(0, 24, 4)]

    assert reach(1) == [False, False, True, False, False, False]
    assert reach(2) == [False, True, True, True, False, False]


@pytest.mark.parametrize("size", [(16, 16), (4, 12), (64, 128)])
def test_downscaling_is_antialiased_bicubic_up_to_the_edges(size):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    wanted = F.interpolate(image, scale_factor=0.25, mode="bicubic", antialias=True)
    torch.testing.assert_close(Downscale()(image), wanted, rtol=0, atol=2e-6)
    assert not Downscale().state_dict(), "weights do not hold it"
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(Downscale()(image), wanted, rtol=0, atol=2e-6)
