"""Start the program `hih-align`, for `python -m hih_align`."""

from .cli.app import main

main()
