"""Image properties against images whose properties are known."""

import numpy as np
import pytest
from PIL import Image

from cl_steps.stats.properties import PROPERTIES, colourfulness, noise, properties_of, sharpness


def properties(image: Image.Image, caption: str = "") -> dict[str, float]:
    return dict(zip(PROPERTIES, properties_of(image, caption), strict=True))


def test_a_flat_image_has_its_brightness_and_nothing_else() -> None:
    found = properties(Image.new("RGB", (40, 20), (128, 128, 128)), "seven")
    assert found["brightness"] == pytest.approx(128)
    for name in ("contrast", "saturation", "colourfulness", "sharpness", "noise"):
        assert found[name] == pytest.approx(0, abs=1e-6), name
    assert (found["width"], found["height"], found["caption_length"]) == (40, 20, 5)
    assert found["aspect"] == pytest.approx(np.log(2))


def test_saturation_of_pure_red_is_whole() -> None:
    assert properties(Image.new("RGB", (8, 8), (255, 0, 0)))["saturation"] == 255


@pytest.mark.parametrize("sigma", [2.0, 10.0, 25.0])
def test_noise_finds_the_deviation_of_gaussian_noise_on_a_gradient(sigma: float) -> None:
    rng = np.random.default_rng(0)
    gradient = np.add.outer(np.arange(200.0), np.arange(200.0)) / 4
    assert noise(gradient + rng.normal(0, sigma, gradient.shape)) == pytest.approx(sigma, rel=0.03)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    luma = np.zeros((3, 5))
    luma[1, 2] = 1.0  # the Laplacian inside is (1, -4, 1)
    assert sharpness(luma) == pytest.approx(np.var([1, -4, 1]))


def test_colourfulness_of_half_red_half_green() -> None:
    pixels = np.zeros((2, 2, 3))
    pixels[0, :, 0] = pixels[1, :, 1] = 255
    # red-green is +-255, yellow-blue is 127.5 everywhere
    assert colourfulness(pixels) == pytest.approx(255 + 0.3 * 127.5)


def test_more_pixels_of_the_same_picture_change_little() -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (512, 512, 3), dtype=np.uint8))
    large = small.resize((2048, 2048), Image.Resampling.NEAREST)
    a, b = properties(small), properties(large)
    assert all(a[name] == pytest.approx(b[name], rel=0.02) for name in PROPERTIES if name not in ("width", "height"))


def test_all_values_are_finite_for_the_smallest_image() -> None:
    assert np.isfinite(properties_of(Image.new("L", (3, 3)), "")).all()
