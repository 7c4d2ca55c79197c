"""Bytes behind the pixels of a JPEG, where no marker stands and no other segment begins: within its
scan. Every decoder skips them."""

import io
import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppfr_ops.imaging.decoding import MAX_PIXELS

_FEW = 16


def fills_its_scan(data: bytes) -> bool:
    """Whether nearly all of a scan is pixels: up to 9 bytes behind them go unnoticed.

    The decoder is given all of the scan but its last byte. Of that the last pixels need a bit, so
    the last row is not done, unless they end before.

    Args:
        data: a JPEG of one scan, with its end at the end (``release.foreign``).

    Raises:
        OSError, SyntaxError, ValueError, LookupError: it cannot be decoded, or is neither grey
            nor RGB, or larger than any picture that is published.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            (codec, box, _, arguments), settings = picture.tile[0][:4], picture.decoderconfig
            mode, (width, height) = picture.mode, picture.size
    except Image.DecompressionBombError:
        raise ValueError from None
    if width * height > MAX_PIXELS:
        raise ValueError
    row = (0, height - 1, width, height)
    shape = {"L": (1, width), "RGB": (1, width, 3)}[mode]
    noise = np.frombuffer(os.urandom(int(np.prod(shape))), np.uint8).reshape(shape)

    def kept(before: NDArray[np.uint8]) -> bool:
        canvas = Image.new(mode, (width, height))
        canvas.paste(Image.fromarray(before), row)
        decoder = Image._getdecoder(mode, codec, arguments, settings)
        decoder.setimage(canvas.im, box)
        decoder.decode(data[:-3])
        decoder.cleanup()
        return np.array_equal(np.asarray(canvas.crop(row)), before)

    # A row of few pixels may be the noise by chance.
    return kept(noise) and (noise.size > _FEW or kept(255 - noise))
