"""`hih-align demo`."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import typer

from ..demo.address import free_port
from ..demo.session import private_folder
from .options import Backend, Device, Dtype, commands

app = commands()


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="The model at the start: size, manifest id, folder or Hub repository.")] = (
        "HIH_T"
    ),
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
    host: Annotated[
        str, typer.Option(help="Address of the server. With 0.0.0.0, other machines can reach it.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port of the server.", min=1, max=65535, show_default="the first free port from 7860 on"),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share", help="Also create a public link by Gradio's servers. Pictures then leave this machine."
        ),
    ] = False,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Find landmarks in the browser: in photographs, in videos, with a webcam. Shows the heatmaps, too.

    By default only this machine can open the page. The page loads no file from other servers. Uploaded files are
    deleted after an hour, and at the end. Ctrl-C stops the server.
    """
    free_port(host, port)  # before seconds of loading
    with private_folder():  # before the import of Gradio, because the import reads these settings
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise ImportError("demo needs gradio: pip install 'hih-align[demo]'") from error
        from ..demo.app import build, launch, wait
        from ..demo.choices import Choices
        from ..demo.models import Models

        models = Models(device=device, dtype=dtype, backend=backend)
        chosen = Choices.of(model)
        models(chosen.model, chosen.scheme, chosen.decode)  # a wrong name or setting fails here, not in the page
        page = build(models, chosen)
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            address = launch(page, host=host, port=port, share=share, browser=open_browser)
            typer.echo(f"{address}  (Ctrl-C ends it)")
            wait()
        except KeyboardInterrupt:
            typer.echo("ended")
        finally:
            signal.signal(signal.SIGTERM, before)
            page.close(verbose=False)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
