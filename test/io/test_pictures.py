"""Pictures: near and far can be told apart, unknown from known, and the scale says the metres it shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfs_ros.io.pictures import (
    colorize_depth,
    depth_picture,
    depth_range,
    focus_text,
    metre_ticks,
    sigma_picture,
)

WHITE = (255, 255, 255)


def inverse_ramp(min_m: float, max_m: float, count: int) -> NDArray[np.float32]:
    return (1 / np.linspace(1 / min_m, 1 / max_m, count)).astype(np.float32)


def is_grey(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(rgb.max(axis=-1) == rgb.min(axis=-1))


def test_near_is_red_and_far_is_blue() -> None:
    red, blue = colorize_depth(np.array([[0.3, 10.0]], np.float32), 0.3, 10.0)[0].astype(int)
    assert red[0] > red[2] + 100 and blue[2] > blue[0] + 60


def test_colours_are_even_in_inverse_depth_and_all_different() -> None:
    ramp = colorize_depth(inverse_ramp(0.3, 10, 64)[None], 0.3, 10)[0]
    assert len(np.unique(ramp, axis=0)) == 64
    steps = np.abs(np.diff(ramp.astype(int), axis=0)).sum(axis=1)
    assert steps.min() > 0 and steps.max() < 80  # no jump that would look like an edge
    # Halfway in dioptres is the middle of the ramp.
    middle = colorize_depth(np.array([[2 / (1 / 0.3 + 1 / 10)]], np.float32), 0.3, 10)[0, 0]
    assert np.abs(middle.astype(int) - ramp[31:33].astype(int)).sum(axis=1).min() <= 20


def test_depths_beyond_the_range_take_the_colour_of_its_end() -> None:
    row = colorize_depth(np.array([[0.01, 0.5, 5.0, 1e6]], np.float32), 0.5, 5.0)[0]
    np.testing.assert_array_equal(row[0], row[1])
    np.testing.assert_array_equal(row[2], row[3])


@given(st.integers(0, 10))
def test_no_depth_is_hatched_grey_and_no_depth_colour_is_grey(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.2, 12, (40, 50)).astype(np.float32)
    missing = rng.random((40, 50)) < 0.3
    depth[missing] = rng.choice([np.nan, np.inf, -np.inf, 0, -1], int(missing.sum()))
    picture = colorize_depth(depth, 0.31, 10)
    np.testing.assert_array_equal(is_grey(picture), missing)
    assert len(np.unique(picture[missing])) == 2  # two stripes


def test_colorize_refuses_other_shapes_and_ranges() -> None:
    for low, high in ((0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, np.nan), (1.0, np.inf)):
        with pytest.raises(ValueError, match="depth range: expected 0 < min_m < max_m"):
            colorize_depth(np.ones((4, 4), np.float32), low, high)
    with pytest.raises(ValueError, match=r"depth_m: expected shape \(H, W\), received \(4, 4, 1\)"):
        colorize_depth(np.ones((4, 4, 1), np.float32), 1, 2)


def test_depth_range_leaves_outliers_out() -> None:
    depth = np.full((100, 100), np.nan, np.float32)
    depth[:50] = np.linspace(1, 2, 5000).reshape(50, 100)
    depth[0, :5] = 1000
    low, high = depth_range(depth)
    assert (low, high) == pytest.approx((1.01, 1.99), abs=0.01)
    assert depth_range(np.full((4, 4), np.nan)) == (0.3, 10.0)
    low, high = depth_range(np.full((4, 4), 2.0))
    assert low < 2 < high and high / low == pytest.approx(1.05)


def test_noise_does_not_fill_the_colours_of_depth() -> None:
    rng = np.random.default_rng(4)
    sigma = np.full((120, 160), 0.02, np.float32)
    plane = (0.78 + 0.02 * rng.standard_normal(sigma.shape)).astype(np.float32)
    low, high = depth_range(plane, sigma)
    assert 1 / low - 1 / high == pytest.approx(20 * 0.02 / 0.78**2, rel=0.02)
    assert (1 / low + 1 / high) / 2 == pytest.approx(1 / 0.78, rel=0.02)
    coloured = colorize_depth(plane, low, high).astype(int)
    alone = colorize_depth(plane, *depth_range(plane)).astype(int)
    assert 4 * coloured.std(axis=(0, 1)).max() < alone.std(axis=(0, 1)).max() * 3


def test_a_scale_coarser_than_sigma_stays() -> None:
    depth = inverse_ramp(0.5, 4, 500)[None]
    sigma = 0.01 * depth**2
    assert depth_range(depth, sigma) == depth_range(depth)
    # Where sigma is as large as the depth, the scale ends before infinity.
    low, high = depth_range(depth, 5 * depth**2)
    assert 0 < low < 0.02 and 4 < high < 20
    assert depth_range(depth, np.full_like(depth, np.nan)) == depth_range(depth)


def test_the_picture_of_sigma_has_a_logarithmic_scale() -> None:
    sigma = np.tile(np.geomspace(0.001, 0.1, 400, dtype=np.float32), (400, 1))
    sigma[:50, :50] = np.nan
    picture = sigma_picture(sigma, "Sigma")
    top, left = next((y, x) for y in range(80) for x in range(40) if tuple(picture[y, x]) in ((208,) * 3, (176,) * 3))
    image = picture[top : top + 400, left : left + 400].astype(int)
    np.testing.assert_array_equal(is_grey(image.astype(np.uint8))[:50, :50], True)
    brightness = image[200].sum(axis=1)
    assert brightness[-10] > brightness[200] + 100 > brightness[10] + 200
    # The column of the bar is the row of the image, upside down.
    bar_x = next(x for x in range(left + 400, picture.shape[1]) if tuple(picture[top, x]) != WHITE) + 2
    bar = picture[top : top + 400, bar_x].astype(int)
    assert np.abs(bar[::-1] - image[200]).max() <= 12
    for odd in (np.full((16, 20), np.nan, np.float32), np.full((16, 20), 0.3, np.float32)):
        assert sigma_picture(odd).shape[0] >= 320


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(2.16, 4.84, [2.5, 3.0, 3.5, 4.0]), (0.31, 10.0, [0.5, 1.0, 2.0]), (1.0, 1.05, [1.01, 1.02, 1.03, 1.04])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert metre_ticks(low, high, 480, 40) == [low, *expected, high]


@given(low=st.floats(0.01, 100), ratio=st.floats(1.01, 1000), gap=st.floats(20, 100))
def test_ticks_keep_their_distance(low: float, ratio: float, gap: float) -> None:
    high = low * ratio
    ticks = np.array(metre_ticks(low, high, 480, gap))
    assert ticks[0] == low and ticks[-1] == high
    positions = (1 / low - 1 / ticks) / (1 / low - 1 / high) * 480
    assert np.diff(positions).min() >= gap - 1e-6


def test_depth_picture_shows_the_colours_of_the_depth() -> None:
    depth = np.tile(inverse_ramp(0.5, 4, 500), (400, 1))
    depth[100:200, 100:200] = np.nan
    picture = depth_picture(depth, "A ramp", 0.5, 4.0)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    expected = colorize_depth(depth, 0.5, 4.0)
    where = find(picture, expected)
    assert where is not None
    top, left = where
    # The bar stands right of the image with the far colour on top and the near colour below.
    bar_x = next(x for x in range(left + 500, picture.shape[1]) if tuple(picture[top, x]) != WHITE) + 2
    bar = picture[top : top + 400, bar_x].astype(int)
    np.testing.assert_array_equal(bar[0], expected[0, -1])
    np.testing.assert_array_equal(bar[-1], expected[0, 0])
    # Ticks stand where the bar has the colour of their depth.
    edge_x = next(x for x in range(bar_x, picture.shape[1]) if tuple(picture[top + 5, x]) == WHITE)
    marked = np.nonzero((picture[top : top + 400, edge_x + 1] < 128).all(axis=-1))[0]
    ticks = np.array([0.5, 0.6, 0.7, 0.8, 1.0, 2.0, 4.0])
    rows = [np.abs(bar - colorize_depth(np.array([[t]]), 0.5, 4.0)[0, 0]).sum(axis=1).argmin() for t in ticks]
    np.testing.assert_allclose(marked, sorted(rows), atol=2)
    # Title above, tick labels beside the bar, and the share without depth below are drawn.
    assert (picture[:top] < 128).any()
    assert (picture[top : top + 400, bar_x + 40 :] < 128).any()
    assert (picture[top + 400 :] < 128).any()


def find(picture: NDArray[np.uint8], part: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Where `part` stands in `picture`, exactly."""
    height, width = part.shape[:2]
    for top in range(picture.shape[0] - height + 1):
        for left in range(min(80, picture.shape[1] - width + 1)):
            if (picture[top, left] == part[0, 0]).all() and np.array_equal(
                picture[top : top + height, left : left + width], part
            ):
                return top, left
    return None


def test_the_share_without_depth_is_told_only_where_there_is_one() -> None:
    depth = np.full((400, 500), 2.0, np.float32)
    complete = depth_picture(depth)
    depth[0, 0] = np.nan
    assert depth_picture(depth).shape[0] > complete.shape[0]


@pytest.mark.parametrize("shape", [(16, 16), (17, 90), (600, 40), (40, 900)])
def test_a_depth_picture_of_any_shape_can_be_read(shape: tuple[int, int]) -> None:
    for depth in (np.full(shape, np.nan, np.float32), np.full(shape, 1.5, np.float32)):
        picture = depth_picture(depth, "A title that is much too long for a picture as narrow as this one")
        assert picture.shape[0] >= 320
        assert (picture < 128).all(axis=-1).any()  # ink


def test_one_end_of_the_range_may_be_given() -> None:
    depth = np.full((320, 400), 2.0, np.float32)
    for low, high in ((1.0, None), (None, 3.0), (5.0, None), (None, 0.5)):
        assert depth_picture(depth, "", low, high).shape[0] >= 320


def test_focus_in_words() -> None:
    assert focus_text(0.0) == "0 dioptres = infinity"
    assert focus_text(2.0) == "2 dioptres = 0.5 m"
