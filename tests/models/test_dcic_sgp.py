"""The codec as a PyTorch model, and the promise of its blocks: nothing looks at the whole image."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from condic.errors import InputError  # noqa: E402
from condic.export.dcic_sgp_graphs import source_graphs  # noqa: E402
from condic.export.onnx_graphs import example_inputs  # noqa: E402
from condic.models.blocks import ConditionAttention, Modulation, ResidualBlock  # noqa: E402
from condic.models.dcic_sgp import ALIGNMENT, DcicSgp  # noqa: E402
from condic.models.weights import load_weights, read_metadata, save_weights  # noqa: E402


@pytest.fixture(scope="module")
def model(data_folder: Path) -> DcicSgp:
    network = DcicSgp("t")
    load_weights(network, data_folder / "dcic-sgp-t.safetensors")
    return network.eval()


def images(count: int = 2, height: int = 128, width: int = 256) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_compiling_for_training_is_no_export(model: DcicSgp, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.11 says of both that a graph is exported."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    block = model.synthesis.at_16.attention[0]
    x = torch.rand(1, block.norm.normalized_shape[0], 8, 8, requires_grad=True)
    block(x, torch.rand(1, block.norm_query.normalized_shape[0], 8, 8)).square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_forward_pass_gives_images_and_bits(model: DcicSgp) -> None:
    with torch.no_grad():
        output = model(images(), torch.tensor([0, 63]))
    assert output.image.shape == output.preview.shape == (2, 3, 128, 256)
    assert set(output.bits) == {"prior", "hyper", "main"}
    for bits in output.bits.values():
        assert bits.shape == (2,)
        assert (bits > 0).all()
        assert torch.isfinite(bits).all()


def test_images_of_a_batch_do_not_mix(model: DcicSgp) -> None:
    batch, levels = images(), torch.tensor([10, 50])
    with torch.no_grad():
        together = model(batch, levels)
        alone = model(batch[1:], levels[1:])
    assert torch.allclose(together.image[1:], alone.image, atol=1e-4)
    assert together.bits["main"][1].item() == pytest.approx(alone.bits["main"].item(), rel=1e-4)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = DcicSgp("t").train()
    output = model(images(4, 128, 128), torch.tensor([0, 20, 40, 63]))
    loss = (
        output.image.square().mean() + output.preview.square().mean() + sum(b.sum() for b in output.bits.values()) / 1e4
    )
    loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("role", ["prior_analysis", "prior_synthesis", "analysis", "hyper_analysis", "synthesis"])
def test_a_change_far_away_changes_nothing_here(model: DcicSgp, role: str) -> None:
    """Float transforms see a neighbourhood only; tiling depends on it. Five windows in a row, the last one changed."""
    source = next(s for s in source_graphs(model) if s.role == role)
    inputs = example_inputs(source, ALIGNMENT, 1, 5)
    others = [x.clone() for x in inputs]
    for x, spec in zip(others, source.inputs, strict=True):
        if spec.stride:
            x[..., -ALIGNMENT // spec.stride :] += 1
    with torch.no_grad():
        pairs = [network_outputs(source.network(*values)) for values in (inputs, others)]
    for here, there, spec in zip(*pairs, source.outputs, strict=True):
        unit = ALIGNMENT // spec.stride
        assert torch.allclose(here[..., :unit], there[..., :unit], atol=1e-5)
        assert (here - there)[..., -unit:].abs().max() > 1e-2


def network_outputs(result: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_attention_stays_in_its_window() -> None:
    block = ConditionAttention(16, 32).eval()
    x, features = torch.randn(1, 32, 16, 16), torch.randn(1, 16, 16, 16)
    other = x.clone()
    other[:, :, :8, 8:] += 1
    with torch.no_grad():
        a, b = block(x, features), block(other, features)
    assert torch.allclose(a[:, :, 8:], b[:, :, 8:], atol=1e-5)
    assert torch.allclose(a[:, :, :8, :8], b[:, :, :8, :8], atol=1e-5)
    assert not torch.allclose(a[:, :, :8, 8:], b[:, :, :8, 8:], atol=1e-2)


def test_attention_takes_its_query_from_the_condition() -> None:
    block = ConditionAttention(16, 32).eval()
    x, features = torch.randn(1, 32, 8, 8), torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        block.project.weight.normal_()
        assert not torch.allclose(block(x, features), block(x, -features), atol=1e-3)


def test_modulation_scales_and_shifts_by_maps_of_the_condition() -> None:
    block = Modulation(2, 3)
    with torch.no_grad():
        block.maps.weight.zero_()
        block.maps.bias.copy_(torch.tensor([1.0, 0, -1, 5, 0, 7]))
        out = block(torch.full((1, 3, 2, 2), 4.0), torch.randn(1, 2, 2, 2))
    assert out[0, :, 0, 0].tolist() == [13, 4, 7]


def test_residual_blocks_start_close_to_the_identity() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        assert 0 < (ResidualBlock(16)(x) - x).abs().mean() < 0.2


def test_sides_that_are_multiples_of_the_alignment_work(model: DcicSgp) -> None:
    for height, width in ((ALIGNMENT, ALIGNMENT), (ALIGNMENT, 3 * ALIGNMENT)):
        with torch.no_grad():
            assert model(images(1, height, width), torch.tensor([5])).image.shape == (1, 3, height, width)


def test_weights_come_back_with_their_metadata(tmp_path: Path, model: DcicSgp) -> None:
    paths = save_weights(model.state_dict(), tmp_path / "w.safetensors", {"licence": "test"})
    assert paths == [tmp_path / "w.safetensors"]
    other = DcicSgp("t")
    load_weights(other, paths[0])
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert read_metadata(paths[0]) == {"licence": "test"}


def test_large_weights_are_split_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: DcicSgp) -> None:
    monkeypatch.setattr("condic.models.weights.SHARD_BYTES", 2**16 + 60_000)
    paths = save_weights(model.state_dict(), tmp_path / "w.safetensors", {"step": "7"})
    assert len(paths) > 2
    assert paths[0].name == f"w-00001-of-{len(paths):05d}.safetensors"
    for path in (paths[0], paths[-1]):
        other = DcicSgp("t")
        load_weights(other, path)
        assert torch.equal(other.analysis.stem.weight, model.analysis.stem.weight)
    paths[1].unlink()
    with pytest.raises(InputError, match="00002-of"):
        load_weights(DcicSgp("t"), paths[0])


def test_weights_of_another_preset_are_refused(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="preset"):
        load_weights(DcicSgp("s"), data_folder / "dcic-sgp-t.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="not readable as weights"):
        load_weights(DcicSgp("t"), tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match=r"none\.safetensors"):
        load_weights(DcicSgp("t"), tmp_path / "none.safetensors")
