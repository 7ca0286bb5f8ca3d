"""``python -m hih_align.cli`` is the same program as `hih-align`."""

from .app import main

main()
