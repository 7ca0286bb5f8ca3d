"""A real browser (Debian's Chromium, driven by Playwright) and the real app, served by this process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import PIL.Image
import pytest

#: Names of the program. Debian uses the first two. The first has no windows, so that a page needs less processor time.
CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Seconds that a page may take. The limit is high because a shared machine is slow.
PATIENCE = float(os.environ.get("HIH_ALIGN_PATIENCE", 60))

#: The static page that computes landmarks in the browser.
WEB = Path(__file__).resolve().parents[1] / "examples" / "web"


def web_prepare() -> Any:
    """The module ``prepare.py`` of the static page, which is in no package."""
    spec = importlib.util.spec_from_file_location("prepare", WEB / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def has_ipv6() -> bool:
    """Whether this machine has the address ::1."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def lacking(reason: str) -> None:
    """Skip the test because there is no browser; fail the test if HIH_ALIGN_REQUIRE_BROWSER is set."""
    if os.environ.get("HIH_ALIGN_REQUIRE_BROWSER"):  # `.ci/run` sets the variable; no other CI does
        pytest.fail(f"{reason}, and HIH_ALIGN_REQUIRE_BROWSER is set", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, as a context. Its camera shows the astronaut.

    All tests share the context, and so its cache: without it, each page would load hundreds of files anew.
    """
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        lacking("needs Chromium (apt-get install chromium), which is not here")
    if find_spec("playwright") is None:
        lacking("needs Playwright (pip install playwright), which is not here")
    from playwright.sync_api import sync_playwright

    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    _film(camera)
    options = [
        "--no-sandbox",  # CI runs as root
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
        # half of a page's time would optimize WebAssembly, which hardly runs faster before the test ends
        "--js-flags=--liftoff-only",
    ]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=options)
        context = started.new_context(permissions=["camera"], accept_downloads=True)
        context.set_default_timeout(PATIENCE * 1000)
        yield context
        started.close()


@dataclass(eq=False)
class Visit:
    """An open page, and the requests that it has sent.

    Attributes:
        page: the page object of Playwright.
        asked: the addresses of all requests.
    """

    page: Any
    asked: list[str] = field(default_factory=list)

    def elsewhere(self) -> list[str]:
        """Requests to other machines."""
        return [
            url for url in self.asked if urlsplit(url).scheme in ("http", "https", "ws", "wss", "ftp") and _far(url)
        ]


def _far(url: str) -> bool:
    return urlsplit(url).hostname != "127.0.0.1"


@pytest.fixture
def visits(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """``visits(address)`` opens a new page, as a visitor who was never there.

    At the end of the test, each page must have sent requests only to 127.0.0.1. Pictures of the pages go to the folder
    that HIH_ALIGN_SCREENSHOTS names, if it names one.
    """
    opened: list[Visit] = []

    def open_page(address: str, width: int = 1280, dark: bool = False) -> Visit:
        visit = Visit(browser.new_page())
        visit.page.set_viewport_size({"width": width, "height": 900})
        visit.page.emulate_media(color_scheme="dark" if dark else "light")
        visit.page.add_init_script("localStorage.clear(); sessionStorage.clear();")
        visit.page.on("request", lambda sent: visit.asked.append(sent.url))
        visit.page.on("websocket", lambda opened: visit.asked.append(opened.url))
        opened.append(visit)
        visit.page.goto(address)
        return visit

    yield open_page
    folder = os.environ.get("HIH_ALIGN_SCREENSHOTS")
    for number, visit in enumerate(opened):
        if folder:
            visit.page.screenshot(path=Path(folder, f"{request.node.name}-{number}.png"), full_page=True)
        visit.page.close()
        assert visit.elsewhere() == []


@pytest.fixture(scope="session")
def detector_file(shared: Path) -> Path:
    """YuNet's file. Without it no faces are found."""
    return shared / "weights" / "face_detection_yunet_2023mar.onnx"


@pytest.fixture(scope="session")
def served(detector_file: Path) -> Iterator[str]:
    """The address of the demo app."""
    if find_spec("gradio") is None:
        lacking("needs Gradio (pip install 'hih-align[demo]'), which is not here")
    from hih_align.demo.session import private_folder

    before = os.environ.get("HIH_ALIGN_WEIGHTS")
    os.environ["HIH_ALIGN_WEIGHTS"] = str(detector_file.parent)
    with private_folder():
        from hih_align.demo.app import build, launch
        from hih_align.demo.choices import Choices
        from hih_align.demo.models import Models

        page = build(Models(device="cpu"), Choices.of("HIH_N"))  # the fastest network
        yield launch(page)
        page.close(verbose=False)
    os.environ.pop("HIH_ALIGN_WEIGHTS")
    if before is not None:
        os.environ["HIH_ALIGN_WEIGHTS"] = before


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut as a PNG file."""
    import skimage.data

    image: Any = skimage.data.astronaut
    path = tmp_path_factory.mktemp("photographs") / "astronaut.png"
    PIL.Image.fromarray(image()).save(path)
    return path


@pytest.fixture(scope="session")
def other_photograph() -> Path:
    """The photograph of Grace Hopper from matplotlib."""
    import matplotlib.cbook

    return Path(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


def _film(path: Path) -> None:
    """Write a film of the moving astronaut: JPEG frames, one after the other."""
    import cv2
    import skimage.data

    image: Any = skimage.data.astronaut
    astronaut = cv2.resize(image()[..., ::-1], (480, 480))
    with path.open("wb") as file:
        for number in range(40):
            frame = np.zeros((480, 640, 3), np.uint8)
            left = 80 + round(40 * np.sin(number / 40 * 2 * np.pi))
            frame[:, left : left + 480] = astronaut
            file.write(cv2.imencode(".jpg", frame)[1].tobytes())
