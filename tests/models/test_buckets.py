"""Sizes of other shapes: as many pixels, sides that a network divides, and the one that keeps most of a picture."""

from __future__ import annotations

import pytest

from cl_steps.models.buckets import buckets, by_nearness, kept

SDXL = buckets((1024, 1024))


@pytest.mark.parametrize("own", [(1024, 1024), (512, 512), (832, 480), (64, 64)])
def test_sizes_have_about_as_many_pixels_as_the_bases_own_which_is_the_first(own: tuple[int, int]) -> None:
    found = buckets(own)
    assert found[0] == own
    assert len(set(found)) == len(found) >= 5
    assert all(0.85 < width * height / (own[0] * own[1]) < 1.2 for width, height in found)


def test_sides_are_multiples_of_64_where_the_bases_own_are_large() -> None:
    assert all(side % 64 == 0 for size in (*SDXL, *buckets((512, 512))) for side in size)
    assert all(side % 8 == 0 for size in buckets((32, 32)) for side in size)
    assert buckets((15, 15)) == ((15, 15),)


def test_a_picture_is_cut_as_little_as_can_be() -> None:
    assert by_nearness(SDXL, (3000, 3000))[0] == (1024, 1024)
    assert by_nearness(SDXL, (400, 300))[0] == (1152, 896)
    assert by_nearness(SDXL, (1080, 1920))[0] == (768, 1344)
    for picture in ((400, 300), (300, 400), (1000, 10), (7, 5)):
        nearest = by_nearness(SDXL, picture)
        assert kept(nearest[0], picture) == max(kept(size, picture) for size in SDXL)
        assert sorted(nearest) == sorted(SDXL)


def test_what_is_kept_is_the_share_of_the_largest_part_of_that_shape() -> None:
    assert kept((100, 100), (200, 100)) == pytest.approx(0.5)
    assert kept((100, 100), (100, 200)) == pytest.approx(0.5)
    assert kept((300, 100), (600, 200)) == pytest.approx(1)
