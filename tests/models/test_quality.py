from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from condic.models.quality import LAMBDA_RANGE, LEVELS, GainPair, LevelTable, lambda_of_level, move_levels  # noqa: E402


def table_of(anchors: list[list[float]]) -> LevelTable:
    table = LevelTable(len(anchors[0]), anchors=len(anchors))
    with torch.no_grad():
        table.anchors.copy_(torch.tensor(anchors))
    return table


def test_levels_at_anchors_have_the_anchors_values() -> None:
    table = table_of([[0.0, 5.0], [10.0, 5.0], [-30.0, 5.0], [1.0, 6.0]])  # at levels 0, 21, 42, 63
    rows = table(torch.tensor([0, 21, 42, 63]))
    assert torch.allclose(rows, table.anchors)


def test_levels_between_anchors_lie_on_a_line() -> None:
    table = table_of([[0.0], [21.0], [0.0], [63.0]])
    rows = table.rows()[:, 0]
    expected = [*range(22), *range(20, -1, -1), *range(3, 64, 3)]
    assert rows.tolist() == pytest.approx(expected, abs=1e-4)


def test_rows_are_all_levels() -> None:
    table = LevelTable(3, initial=2.0, slope=4.0)
    assert table.rows().shape == (LEVELS, 3)
    assert torch.equal(table.rows(), table(torch.arange(LEVELS)))
    assert table.rows()[[0, 63], 0].tolist() == pytest.approx([0.0, 4.0])


def test_gradients_reach_the_two_neighbouring_anchors_only() -> None:
    table = LevelTable(1, anchors=8)
    table(torch.tensor([12])).sum().backward()
    assert table.anchors.grad is not None
    weights = table.anchors.grad[:, 0]
    assert weights.nonzero().flatten().tolist() == [1, 2]
    assert weights.sum().item() == pytest.approx(1)


def test_gains_start_as_inverses_of_each_other_and_rise_with_the_level() -> None:
    pair = GainPair(5, 4.0)
    gain, inverse = pair(torch.arange(LEVELS))
    assert gain.shape == (LEVELS, 5, 1, 1)
    assert torch.allclose(gain * inverse, torch.ones_like(gain), atol=1e-5)
    assert (gain[1:] > gain[:-1]).all()
    low, high = LAMBDA_RANGE["mse"]
    assert (gain[63, 0] / gain[0, 0]).item() == pytest.approx((high / low) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("loss", LAMBDA_RANGE)
def test_lambda_is_log_spaced_over_its_range(loss: str) -> None:
    values = lambda_of_level(torch.arange(LEVELS).double(), loss)
    assert values[[0, 63]].tolist() == pytest.approx(LAMBDA_RANGE[loss])
    assert torch.allclose(values[1:] / values[:-1], values[1] / values[0])


def test_a_model_moved_to_another_range_of_lambda_has_the_same_tables_at_the_same_lambda() -> None:
    table = LevelTable(1, initial=3.0, slope=2.0)  # a line, so that what lies beyond is known as well
    low, high = LAMBDA_RANGE["mse"]
    former = (4 * low, 2 * high)
    slope = 2.0 / torch.log(torch.tensor(former[1] / former[0]))
    move_levels(torch.nn.ModuleList([table]), "mse", former)
    lambdas = lambda_of_level(torch.arange(LEVELS).double())
    middle = (former[0] * former[1]) ** 0.5
    assert torch.allclose(table.rows()[:, 0].double(), 3.0 + slope * torch.log(lambdas / middle), atol=1e-4)


def test_moving_to_the_same_range_changes_nothing() -> None:
    table = table_of([[0.0], [21.0], [0.0], [63.0]])
    before = table.anchors.detach().clone()
    move_levels(torch.nn.ModuleList([table]), "mse", LAMBDA_RANGE["mse"])
    assert torch.allclose(table.anchors, before, atol=1e-4)
