"""Peers: whole files there and back, the ones that are missing, the ones that nobody knows."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from condic.benchmarks.peers import COMPRESSAI, PEERS, MissingError, open_peer, split_level
from condic.errors import InputError


@pytest.mark.parametrize("name", [name for name in PEERS if name not in COMPRESSAI])
def test_a_peer_codes_a_file_that_grows_with_its_level(name: str, drawing: Callable[..., np.ndarray]):
    try:
        peer = open_peer(name, threads=1)
    except MissingError as error:
        pytest.skip(str(error))
    image = drawing(80, 100)
    small, large = (peer.encode(image, level) for level in (peer.levels[0], peer.levels[-1]))
    assert len(small) < len(large)
    decoded = peer.decode(large)
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - image).mean() < 12
    assert peer.levels[0] < peer.usual_level < peer.levels[-1]


def test_an_unknown_peer_is_named_with_those_that_are_known():
    with pytest.raises(InputError, match=r"unknown peer 'gif'; known: jpeg, webp, avif, jxl, bmshj2018-hyperprior"):
        open_peer("gif")


def test_a_level_is_refused_where_a_curve_is_measured():
    with pytest.raises(InputError, match="jpeg:90: this runs at levels of its own; give jpeg"):
        open_peer("jpeg:90")


def test_what_a_library_refuses_is_named():
    with pytest.raises(InputError, match=r"^webp: encoding error"):
        open_peer("webp").encode(np.zeros((1, 16500, 3), np.uint8), 50)
    with pytest.raises(InputError, match=r"^jpeg: "):
        open_peer("jpeg").decode(b"no image")


def test_a_peer_whose_library_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "compressai", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(MissingError, match=r"docs/benchmarks\.md"):
        open_peer("mbt2018-mean")
    with pytest.raises(MissingError, match="pip install pillow-jxl-plugin"):
        open_peer("jxl")


@pytest.mark.parametrize("name", COMPRESSAI)
def test_compressai_codes_a_real_file_whose_parts_are_all_in_it(name: str, drawing: Callable[..., np.ndarray]):
    pytest.importorskip("compressai")
    peer = open_peer(name, threads=1)
    image = drawing(70, 90)
    data = peer.encode(image, 1)
    assert peer.decode(data).shape == image.shape
    with pytest.raises(InputError, match="no file"):
        peer.decode(data[:10])


def test_a_peer_may_come_with_a_level():
    assert split_level("jpeg") == ("jpeg", None)
    assert split_level("mbt2018-mean:3") == ("mbt2018-mean", 3)
    for peer, levels in {"jpeg:best": "0 to 100", "jpeg:500": "0 to 100", "cheng2020-anchor:7": "1 to 6"}.items():
        with pytest.raises(InputError, match=f"a level is a number from {levels}, as in"):
            split_level(peer)
