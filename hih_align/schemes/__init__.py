"""What a landmark set is: its names, mirror pairs, contours and the distance that normalises errors.

`scheme` holds the class and its files, `builtin` the three schemes that come with the package, `conversion` the ways
between the three.
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
