"""What can be said of an image and its caption without any model: light, colour, sharpness, noise, sizes.

All but `width` and `height` are measured on the image shrunk so that its shorter side has at most 512 pixels: a
camera with more pixels is not another style, and the cost of a large file stays bounded.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Floats = NDArray[np.float64]

PROPERTIES = (
    "brightness",
    "contrast",
    "saturation",
    "colourfulness",
    "sharpness",
    "noise",
    "aspect",
    "caption_length",
    "width",
    "height",
)
DECIDING = PROPERTIES[:-2]
"""The ones that the drift test sees: the number of pixels in a file is gone before a model sees the image."""

MAX_SIDE = 512
LUMA = np.array([0.299, 0.587, 0.114])
_LAPLACIAN = np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
_IMMERKAER = np.array([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])


def properties_of(image: Image.Image, caption: str) -> Floats:
    """The values of `PROPERTIES` (len(PROPERTIES),) of one RGB image of at least 3x3 pixels; all finite.

    Brightness and contrast (mean and standard deviation of the luma), saturation and colourfulness are on the scale
    0 to 255; sharpness and noise are logarithms log(1 + x); aspect is log(width / height); the caption's length is in
    characters.
    """
    pixels = np.asarray(_shrunk(image), dtype=np.float64)
    luma = pixels @ LUMA
    values = (
        luma.mean(),
        luma.std(),
        np.ptp(pixels, axis=2).mean(),
        colourfulness(pixels),
        math.log1p(sharpness(luma)),
        math.log1p(noise(luma)),
        math.log(image.width / image.height),
        len(caption),
        image.width,
        image.height,
    )
    return np.array(values, dtype=np.float64)


def colourfulness(pixels: Floats) -> float:
    """M3 of Hasler and Suesstrunk, "Measuring colourfulness in natural images" (2003), of (H, W, 3) in 0 to 255."""
    red, green, blue = np.moveaxis(pixels, 2, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = math.hypot(red_green.std(), yellow_blue.std())
    return spread + 0.3 * math.hypot(red_green.mean(), yellow_blue.mean())


def sharpness(luma: Floats) -> float:
    """The variance of the Laplacian of (H, W): a blurred image has little of it (Pech-Pacheco et al., 2000)."""
    return float(_filtered(luma, _LAPLACIAN).var())


def noise(luma: Floats) -> float:
    """The standard deviation of the noise in (H, W): Immerkaer, "Fast noise variance estimation" (1996).

    sigma = sqrt(pi / 2) / (6 (W - 2) (H - 2)) * sum |luma * N|, N blind to constant, linear and quadratic shades.
    """
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(_filtered(luma, _IMMERKAER)).mean())


def _filtered(luma: Floats, kernel: Floats) -> Floats:
    """The kernel's answer where it lies wholly inside the image: (H - 2, W - 2)."""
    filtered: Floats = ndimage.convolve(luma, kernel, mode="nearest")[1:-1, 1:-1]
    return filtered


def _shrunk(image: Image.Image) -> Image.Image:
    rgb = image.convert("RGB")
    scale = MAX_SIDE / min(rgb.size)
    if scale >= 1:
        return rgb
    return rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BOX)
