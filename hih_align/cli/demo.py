"""`hih-align demo`."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import typer

from ..demo.session import private_folder
from .options import Backend, Device, Dtype, commands

app = commands()


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="What is chosen first: size, manifest id, folder or Hub repository.")] = (
        "HIH_T"
    ),
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
    host: Annotated[
        str, typer.Option(help="Address to serve at; 0.0.0.0 is reached by other machines, too.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port to serve at.", show_default="the first free one from 7860 on")
    ] = None,
    share: Annotated[
        bool,
        typer.Option("--share", help="Also through a public link, by Gradio's servers: pictures leave this machine."),
    ] = False,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Landmarks in the browser: photographs, videos, a webcam, and a look into the heatmaps.

    The page is served at 127.0.0.1 and loads nothing from elsewhere. What is uploaded is removed at the end.
    Ctrl-C ends it.
    """
    with private_folder():  # before Gradio is loaded, which reads the settings then
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
