import re
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from condic.errors import InputError  # noqa: E402
from condic.models import checkpoints  # noqa: E402
from condic.models.checkpoints import (  # noqa: E402
    closest_scale,
    load_conditional,
    load_low_resolution,
    load_super_resolution,
    read_state,
)
from condic.models.cic_sr import CicSr  # noqa: E402
from condic.models.swin import relative_position_index  # noqa: E402

State = dict[str, Tensor]


class Published:
    """Names and shapes of a published state dict. Tensors take no memory: one number each, seen in their shape."""

    def __init__(self) -> None:
        self.state: State = {}

    def add(self, name: str, *shape: int) -> None:
        self.state[name] = torch.full((), 0.01).expand(shape)

    def linear(self, name: str, out: int, inputs: int, *, bias: bool = True) -> None:
        self.add(f"{name}.weight", out, inputs)
        if bias:
            self.add(f"{name}.bias", out)

    def conv(self, name: str, out: int, inputs: int, kernel: int = 3) -> None:
        self.add(f"{name}.weight", out, inputs, kernel, kernel)
        self.add(f"{name}.bias", out)

    def norm(self, name: str, width: int) -> None:
        self.add(f"{name}.weight", width)
        self.add(f"{name}.bias", width)

    def blocks(self, name: str, width: int, depth: int, heads: int, window: int, mlp: int, *, cross: bool) -> None:
        for k in range(depth):
            block = f"{name}.blocks.{k}"
            self.norm(f"{block}.norm1", width)
            self.add(f"{block}.attn.relative_position_bias_table", (2 * window - 1) ** 2, heads)
            self.state[f"{block}.attn.relative_position_index"] = relative_position_index(window)
            for layer, factor in (("q", 1), ("kv", 2)) if cross else (("qkv", 3),):
                self.linear(f"{block}.attn.{layer}", factor * width, width)
            self.linear(f"{block}.attn.proj", width, width)
            self.norm(f"{block}.norm2", width)
            self.linear(f"{block}.mlp.fc1", mlp * width, width)
            self.linear(f"{block}.mlp.fc2", width, mlp * width)

    def transforms(self, *, cross: bool) -> None:
        widths, depths, heads = (48, 96, 192, 384), (2, 2, 6, 2), (3, 6, 12, 24)
        self.conv("patch_embed.proj", 48, 3, 2)
        self.norm("patch_embed.norm", 48)
        for k in range(4):
            self.blocks(f"layers.{k}", widths[k], depths[k], heads[k], 4, 4, cross=cross)
            self.blocks(f"syn_layers.{k}", widths[3 - k], depths[3 - k], heads[3 - k], 4, 4, cross=cross)
        for k in range(3):
            self.norm(f"layers.{k}.downsample.norm", 4 * widths[k])
            self.linear(f"layers.{k}.downsample.reduction", 2 * widths[k], 4 * widths[k], bias=False)
            self.norm(f"syn_layers.{k}.downsample.norm", widths[3 - k])
            self.linear(f"syn_layers.{k}.downsample.reduction", 2 * widths[3 - k], widths[3 - k], bias=False)
        self.conv("end_conv.0", 192, 48, 5)
        self.conv("end_conv.2", 3, 48)

    def hyper_convolutions(self) -> None:
        for name, widths in (("h_a", (384, 384, 336, 288, 240, 192)),):
            for k in range(5):
                self.conv(f"{name}.{2 * k}", widths[k + 1], widths[k])
        for name in ("h_mean_s", "h_scale_s"):
            for layer, out, inputs in (
                ("0", 240, 192), ("2.0", 4 * 288, 240), ("4", 336, 288), ("6.0", 4 * 384, 336), ("8", 384, 384)
            ):  # fmt: skip
                self.conv(f"{name}.{layer}", out, inputs)

    def chunks(self, count: int, width: int, window: int, known: int, refined: int, *, cross: bool) -> None:
        for name, own in (("cc_mean_transforms2", 0), ("cc_scale_transforms2", 0), ("lrp_transforms2", 1)):
            for k in range(count):
                inputs = width * (known + min(k + own, window + own))
                for layer, (i, o) in enumerate(pairwise((inputs, 224, 176, 128, 64, width))):
                    self.conv(f"{name}.{k}.{2 * layer}", o, i)
        for name, depths, side in (
            ("mu_Swin2", (2, 6), refined),
            ("sigma_Swin2", (2, 2), 4 if cross else refined),
            ("LRP_Swin2", (2, 6), refined),
        ):  # fmt: skip
            for k in range(count):
                for stage, depth in enumerate(depths):
                    self.blocks(f"{name}.{k}.{stage}", width, depth, 4, side, 4, cross=cross)

    def bottleneck(self) -> None:
        for k, (i, o) in enumerate(zip((1, 3, 3, 3, 3), (3, 3, 3, 3, 1), strict=True)):
            self.add(f"entropy_bottleneck._matrix{k}", 192, o, i)
            self.add(f"entropy_bottleneck._bias{k}", 192, o, 1)
            if k < 4:
                self.add(f"entropy_bottleneck._factor{k}", 192, o, 1)
        self.add("entropy_bottleneck.quantiles", 192, 1, 3)
        for name in ("_offset", "_quantized_cdf", "_cdf_length"):
            self.add(f"entropy_bottleneck.{name}", 0)
            self.add(f"gaussian_conditional.{name}", 0)
        self.add("entropy_bottleneck.target", 3)
        self.add("gaussian_conditional.scale_table", 0)


def czigzag() -> State:
    p = Published()
    p.transforms(cross=True)
    p.conv("patch_embed_up.proj", 48, 3, 2)
    p.norm("patch_embed_up.norm", 48)
    for name in ("encoder_context", "hyper_context", "decoder_context"):
        for k in range(4):
            p.conv(f"{name}.{k}", 48 * 2 ** (k + 1), 48 * 2**k)
    for k, (width, depth) in enumerate(((384, 2), (192, 6))):
        p.blocks(f"hyper_encoder_layers.{k}", width, depth, 4, 4, 4, cross=True)
    for name in ("mean", "scale"):
        for k, (width, depth) in enumerate(((192, 2), (384, 6))):
            p.blocks(f"hyper_decoder_{name}.{k}", width, depth, 4, 4, 4, cross=True)
        p.conv(f"hyper_decoder_conv_{name}1.0", 4 * 192, 192)
        p.conv(f"hyper_decoder_conv_{name}2", 384, 192)
    for name, out, inputs in (("Conv1", 192, 384), ("Conv1_2", 192, 384), ("Conv2", 192, 192)):
        p.conv(f"hyper_encoder_{name}", out, inputs)
    p.hyper_convolutions()
    p.chunks(16, 96, 6, 12, 6, cross=True)
    p.bottleneck()
    return p.state


def stf8() -> State:
    p = Published()
    p.transforms(cross=False)
    p.hyper_convolutions()
    p.chunks(24, 64, 12, 24, 8, cross=False)
    p.bottleneck()
    return p.state


def swinir() -> State:
    p = Published()
    p.conv("conv_first", 180, 3)
    p.norm("patch_embed.norm", 180)
    for k in range(6):
        p.blocks(f"layers.{k}.residual_group", 180, 6, 6, 8, 2, cross=False)
        p.conv(f"layers.{k}.conv", 180, 180)
        for odd in (1, 3, 5):
            p.add(f"layers.{k}.residual_group.blocks.{odd}.attn_mask", 36, 64, 64)
    p.norm("norm", 180)
    p.conv("conv_after_body", 180, 180)
    p.conv("conv_before_upsample.0", 64, 180)
    p.conv("upsample.0", 256, 64)
    p.conv("upsample.2", 256, 64)
    p.conv("conv_last", 3, 64)
    return p.state


LOADERS = {
    "czigzag": (czigzag, load_conditional),
    "stf8": (stf8, load_low_resolution),
    "swinir": (swinir, load_super_resolution),
}


def paper() -> CicSr:
    with torch.device("meta"):
        return CicSr("paper", "image")


@pytest.mark.parametrize("name", LOADERS)
def test_every_published_tensor_is_read_or_known_to_be_unread(name):
    make, load = LOADERS[name]
    state = make()
    result = load(paper(), state, "file.pth")
    assert result.read | result.unread == state.keys()
    derived = {n for n in state if re.search(r"_index|attn_mask|\._offset|_cdf|cdf_length|target|scale_table", n)}
    unread = result.unread - derived
    if (
        name == "czigzag"
    ):  # what its forward pass leaves alone, counted in the release: 16 chunks of 20 blocks, and more
        families = {n.split(".")[0] for n in unread}
        assert families == {
            "patch_embed_up", "decoder_context", "encoder_context", "hyper_context", "h_a", "h_mean_s", "h_scale_s",
            "mu_Swin2", "sigma_Swin2", "LRP_Swin2",
        }  # fmt: skip
        assert {n for n in unread if n.startswith(("enc", "hyper"))} == {
            f"{f}_context.3.{p}" for f in ("encoder", "hyper") for p in ("weight", "bias")
        }
    else:
        assert not unread


def test_all_parameters_of_the_paper_preset_take_part_in_its_forward_pass():
    model = paper().train()
    for make, load in LOADERS.values():
        state = {n: torch.empty(t.shape, device="meta") for n, t in make().items() if "index" not in n}
        if load is load_super_resolution:
            load(model, state, "file.pth")
    model = paper().train()
    output = model(torch.empty(1, 3, 1024, 1024, device="meta"), torch.zeros(1, dtype=torch.long, device="meta"))
    total = output.image.mean() + output.preview.mean() + sum(bits.sum() for bits in output.bits.values())
    total.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None and ".index." not in n]
    assert not idle


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_or_misshapen_tensor_is_named(name):
    make, load = LOADERS[name]
    victim = {"czigzag": "layers.2.blocks.5.attn.kv.weight", "stf8": "mu_Swin2.3.1.blocks.0.mlp.fc1.bias",
              "swinir": "layers.0.residual_group.blocks.0.norm1.weight"}[name]  # fmt: skip
    state = make()
    tensor = state.pop(victim)
    with pytest.raises(InputError, match=f"file.pth: lacks the tensor {re.escape(victim)}"):
        load(paper(), state, "file.pth")
    state[victim] = tensor.expand(2, *tensor.shape)
    with pytest.raises(InputError, match=rf"{re.escape(victim)} is \[2, .*this model has"):
        load(paper(), state, "file.pth")
    state[victim] = tensor
    state["surprise.weight"] = tensor
    with pytest.raises(InputError, match=r"unknown tensor surprise\.weight"):
        load(paper(), state, "file.pth")


def test_parameters_are_what_a_bundle_stores():
    model = paper()
    load_super_resolution(model, swinir(), "file.pth")
    value = model.super_resolution.conv_last.weight
    assert (value == torch.tensor(0.01).half().float()).all()
    assert (value != 0.01).all()


def test_merged_pixels_are_reordered_with_their_weights():
    c, x = 3, torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(5, 4 * c, generator=torch.Generator().manual_seed(1))
    theirs = torch.cat([x[:, :, 0::2, 0::2], x[:, :, 1::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 1::2]], dim=1)
    wanted = torch.einsum("oc,bchw->bohw", weight, theirs)
    ours = torch.nn.functional.pixel_unshuffle(x, 2)
    torch.testing.assert_close(torch.einsum("oc,bchw->bohw", checkpoints._channel_major(weight), ours), wanted)


def test_a_wide_factorised_prior_gets_a_wide_scale():
    def sharp(slope: float) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        matrix = torch.log(torch.expm1(torch.full((1, 1, 1), slope)))
        return [matrix], [torch.zeros(1, 1, 1)], []

    narrow, wide = (int(closest_scale(*sharp(slope), torch.zeros(1, dtype=torch.float64))) for slope in (8.0, 0.4))
    assert narrow < 10 < wide  # logistic with standard deviations 0.23 and 4.5


def test_a_checkpoint_is_read_without_its_wrappings(tmp_path):
    torch.save({"epoch": 3, "state_dict": {"module.a": torch.ones(2)}}, tmp_path / "a.pth")
    assert list(read_state(tmp_path / "a.pth")) == ["a"]
    (tmp_path / "b.pth").write_bytes(b"no")
    with pytest.raises(InputError, match=r"b\.pth: not a PyTorch checkpoint"):
        read_state(tmp_path / "b.pth")
