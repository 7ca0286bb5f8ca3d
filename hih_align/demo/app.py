"""The page of the demo, and its server."""

from __future__ import annotations

import threading
from typing import Any

import gradio as gr

from . import address, choices, inside, photo, session, uploads, video, webcam
from .models import Models

#: Content security policy: the page may load only files of this server, and data that its scripts create.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; form-action 'self'; base-uri 'self'"
)

#: Fonts of the user's system, so that the page downloads no font.
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONOSPACE = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

ABOUT = """# hih-align
Facial landmarks at subpixel accuracy. Choose a photograph: its landmarks appear. Pictures stay on the machine that this
page comes from. They are removed after an hour, and all of them when it stops.
"""


class Policy:
    """Middleware that adds `POLICY` to the responses of an ASGI application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, answer)


def build(models: Models, chosen: choices.Choices | None = None) -> Any:
    """Build the page, a `Blocks` object of Gradio.

    Args:
        models: loads the models.
        chosen: the initial choices.

    Raises:
        ValueError, OSError: the chosen model cannot be loaded, see `FaceAligner.from_pretrained`.
    """
    start = (choices.Choices() if chosen is None else chosen).settled(models)
    with gr.Blocks(
        title="hih-align", analytics_enabled=False, delete_cache=(session.KEPT // 6, session.KEPT), fill_width=True
    ) as page:
        gr.Markdown(ABOUT)
        with gr.Tabs():
            with gr.Tab("Photo", id="photo"):
                result, shown = photo.tab(models, start)
            with gr.Tab("Video", id="video"):
                video.tab(models, start)
            with gr.Tab("Webcam", id="webcam"):
                webcam.tab(models, start)
            with gr.Tab("Look inside", id="inside"):
                inside.tab(result, shown)
    page.queue(api_open=False)
    return page


def launch(
    page: Any, *, host: str = "127.0.0.1", port: int | None = None, share: bool = False, browser: bool = False
) -> str:
    """Start the server and return the address of the page. ``page.close()`` stops the server.

    Args:
        page: the result of `build`.
        host: address of this machine on which the server listens, see `address.free_port`.
        port: port of the server. None: the first free port from 7860 on.
        share: also create a public link by Gradio's servers.
        browser: open the page in the browser.

    Raises:
        ValueError, OSError: see `address.free_port`.
    """
    from starlette.middleware import Middleware

    _, local, public = page.launch(
        server_name=address.in_url(host),
        server_port=address.free_port(host, port),
        share=share,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        footer_links=[],
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        max_file_size=uploads.FILE_SIZE,
        app_kwargs={"middleware": [Middleware(Policy)], "docs_url": None, "redoc_url": None},
        theme=theme(),
        css=choices.style(),
    )
    return str(public or local)


def theme() -> Any:
    """Gradio's default theme with the fonts of the reader's system and a darker grey for notes."""
    grey = "*neutral_600"
    made = gr.themes.Default(font=FONT, font_mono=MONOSPACE)
    return made.set(body_text_color_subdued=grey, block_info_text_color=grey)


def wait() -> None:
    """Wait until the process is interrupted."""
    threading.Event().wait()
