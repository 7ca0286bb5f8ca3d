"""Landmark schemes: names, mirror pairs and contours of a landmark set, and the distance that normalises its errors.

`scheme` holds the class `Scheme` and reads scheme files. `builtin` holds the three built-in schemes. `conversion`
converts landmarks from one built-in scheme to another.
"""

from .builtin import COFW, SCHEMES, W300, WFLW, get_scheme
from .conversion import conversion
from .scheme import Group, Scheme, load_scheme, scheme_from_dict

__all__ = [
    "COFW",
    "SCHEMES",
    "W300",
    "WFLW",
    "Group",
    "Scheme",
    "conversion",
    "get_scheme",
    "load_scheme",
    "scheme_from_dict",
]
