"""The demo as a Hugging Face Space; on a machine of one's own it serves http://127.0.0.1:7860."""

from __future__ import annotations

import os

from hih_align.demo.session import private_folder


def main() -> None:
    """Serve the page until the process is ended."""
    with private_folder():  # before Gradio is loaded, which reads the settings then
        from hih_align.demo.app import build, launch, wait
        from hih_align.demo.models import Models

        page = build(Models())
        # a Space is a container, reached from outside
        address = launch(page, host="0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1", port=7860)
        print(address, flush=True)
        try:
            wait()
        except KeyboardInterrupt:
            page.close(verbose=False)


if __name__ == "__main__":
    main()
