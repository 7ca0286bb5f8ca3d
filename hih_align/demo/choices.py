"""Parts that several tabs share: the choice of a model, and the script of the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import gradio as gr

from . import models, uploads

#: Shown in place of a picture before there is one.
EMPTY = '<div class="hih-empty">The picture with its landmarks comes here.</div>'


@dataclass(frozen=True)
class Choices:
    """The initial choices on the page.

    Attributes:
        model: a size, or any model that `FaceAligner.from_pretrained` accepts.
        scheme: id of the scheme of the landmarks. None: the model's own scheme.
        decode: "expectation" or "argmax". None: the model's own.
    """

    model: str = "HIH_T"
    scheme: str | None = "300w"
    decode: str | None = None

    @classmethod
    def of(cls, model: str) -> Choices:
        """The choices for a model. The scheme is the first one of a size, that of a manifest id, or the model's own."""
        size, _, scheme = model.partition("/")
        listed = models.schemes(size)
        if model in models.sizes():
            return cls(model, listed[0])
        return cls(size, scheme) if scheme in listed else cls(model, None)

    def settled(self, load: models.Models) -> Choices:
        """The choices with the decoder that the model has if none is chosen.

        An exported model has only its own decoder. Raises the errors of `FaceAligner.from_pretrained`.
        """
        if self.decode is not None:
            return self
        return replace(self, decode=load(self.model, self.scheme, None).decoder.method)


def fast(chosen: Choices) -> Choices:
    """The initial choices for a camera: the smallest network on this machine, if a size was chosen."""
    sizes = models.sizes()
    if chosen.model not in sizes or chosen.scheme not in models.schemes(sizes[0]):
        return chosen
    return replace(chosen, model=sizes[0])


def inputs(load: models.Models, chosen: Choices) -> tuple[Any, Any, Any, Any]:
    """Create the inputs for model, scheme and decoder.

    Returns:
        The three inputs, and the event after the choice of a model, when its schemes and decoders are listed.

    Raises the errors of `FaceAligner.from_pretrained`.
    """
    sizes = models.sizes()
    names = [*sizes, *([] if chosen.model in sizes else [chosen.model])]
    with gr.Group():
        with gr.Row():
            model = gr.Dropdown(names, value=chosen.model, label="Model", min_width=110, elem_classes="hih-model")
            scheme = gr.Dropdown(
                _schemes(chosen.model),
                value=chosen.scheme,
                label="Scheme, points",
                min_width=110,
                elem_classes="hih-scheme",
            )
        decode = gr.Radio(load.decoders(chosen.model, chosen.scheme), value=chosen.decode, label="Decoder")

    @uploads.telling
    def follow(model: str, scheme: str | None, decode: str) -> Any:
        listed = _schemes(model)
        values = [value for _, value in listed]
        scheme = scheme if scheme in values else values[0]
        possible = load.decoders(model, scheme)
        return (
            gr.Dropdown(listed, value=scheme),
            gr.Radio(possible, value=decode if decode in possible else possible[0]),
        )

    options = {"queue": False, "show_progress": "hidden"}
    followed = model.input(follow, [model, scheme, decode], [scheme, decode], **options)
    return model, scheme, decode, followed


def script() -> str:
    """The script of a picture: the user draws boxes and selects points by mouse or finger."""
    return resources.files(__package__).joinpath("assets", "view.js").read_text("utf-8")


def style() -> str:
    """The style sheet of the page."""
    return resources.files(__package__).joinpath("assets", "demo.css").read_text("utf-8")


def _schemes(model: str) -> list[tuple[str, str | None]]:
    found = models.schemes(model)
    if not found:
        return [("the model's own", None)]
    return [(models.SCHEME_NAMES.get(scheme, scheme), scheme) for scheme in found]
