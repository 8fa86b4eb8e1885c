"""Text in a picture without a drawing library: the 5 x 7 dots of character displays."""

import numpy as np
from numpy.typing import NDArray

HEIGHT = 7
"""Dots of a line of text."""
_ADVANCE = 6  # dots from one sign to the next

# Five columns for each sign, from the left; the lowest bit is the top dot.
_COLUMNS = {
    " ": "0000000000", "%": "2313086462", "+": "08083E0808", ",": "0050300000", "-": "0808080808", ".": "0060600000",
    ":": "0036360000",
    "0": "3E5149453E", "1": "00427F4000", "2": "4261514946", "3": "2141454B31", "4": "1814127F10", "5": "2745454539",
    "6": "3C4A494930", "7": "0171090503", "8": "3649494936", "9": "064949291E",
    "A": "7E1111117E", "B": "7F49494936", "C": "3E41414122", "D": "7F4141221C", "E": "7F49494941", "F": "7F09090901",
    "G": "3E4149497A", "H": "7F0808087F", "I": "00417F4100", "J": "2040413F01", "K": "7F08142241", "L": "7F40404040",
    "M": "7F020C027F", "N": "7F0408107F", "O": "3E4141413E", "P": "7F09090906", "Q": "3E4151215E", "R": "7F09192946",
    "S": "4649494931", "T": "01017F0101", "U": "3F4040403F", "V": "1F2040201F", "W": "3F4038403F", "X": "6314081463",
    "Y": "0708700807", "Z": "6151494543",
    "a": "2054545478", "b": "7F48444438", "c": "3844444420", "d": "384444487F", "e": "3854545418", "f": "087E090102",
    "g": "0C5252523E", "h": "7F08040478", "i": "00447D4000", "j": "2040443D00", "k": "7F10284400", "l": "00417F4000",
    "m": "7C04180478", "n": "7C08040478", "o": "3844444438", "p": "7C14141408", "q": "081414187C", "r": "7C08040408",
    "s": "4854545420", "t": "043F444020", "u": "3C4040207C", "v": "1C2040201C", "w": "3C4030403C", "x": "4428102844",
    "y": "0C5050503C", "z": "4464544C44",
}  # fmt: skip
_DOTS = {
    sign: np.array([[column >> row & 1 for column in bytes.fromhex(columns)] for row in range(HEIGHT)], np.bool_)
    for sign, columns in _COLUMNS.items()
}


def width(text: str, scale: int = 1) -> int:
    """Return the pixels that a line of text takes from left to right."""
    return max(len(text) * _ADVANCE - 1, 0) * scale


def write(
    picture: NDArray[np.uint8], top: int, left: int, text: str, colour: NDArray[np.uint8], scale: int = 1
) -> None:
    """Write a line of letters, digits and `%,-.:` into a picture (height, width, 3), one dot as `scale` pixels."""
    dots = np.zeros((HEIGHT, width(text)), np.bool_)
    for index, sign in enumerate(text):
        dots[:, index * _ADVANCE : index * _ADVANCE + 5] = _DOTS[sign]
    pixels = dots.repeat(scale, axis=0).repeat(scale, axis=1)
    picture[top : top + pixels.shape[0], left : left + pixels.shape[1]][pixels] = colour
