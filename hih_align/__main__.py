"""``python -m hih_align`` is the same program as `hih-align`."""

from .cli.app import main

main()
