"""The tabs of the page in Gradio. The leading underscore hides the module from ModelScope's plugin loader."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio

from ..errors import ImageError
from . import pad
from .drawing import error_html
from .handlers import LINE, PAGE, Choice, Handlers, Item, Source
from .texts import TEXTS, language_of

_KEPT = 24 * 3600  # s that an uploaded file is kept while the page is served
_TURN: Any = {"concurrency_limit": 1, "concurrency_id": "reading"}  # a reading uses all cores
_PRIVATE: Any = {"api_visibility": "private"}

word = gradio.I18n()  # translated in the browser


class LocalBlocks(gradio.Blocks):
    """Blocks that accept only uploaded files: Gradio itself would also download a URL given in place of a file."""

    async def preprocess_data(self, block_fn: Any, inputs: list, state: Any, explicit_call: bool = False) -> list:
        if _holds_address(inputs):
            raise gradio.Error("give an uploaded file, not an address")
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)


def _holds_address(data: object) -> bool:
    if isinstance(data, dict):
        path = data.get("path")
        return (isinstance(path, str) and "://" in path) or any(_holds_address(value) for value in data.values())
    return isinstance(data, list) and any(_holds_address(value) for value in data)


def build(
    handlers: Handlers, models: Sequence[str], precisions: Sequence[str], precision: str, pages: bool, others: bool
) -> gradio.Blocks:
    """Build the whole page.

    Args:
        models: The choices, the first as the initial one.
        precision: Initial choice.
        pages: Whether pages can be read.
        others: Whether models other than `models` may be typed.
    """
    with LocalBlocks(title=" · ".join(TEXTS["title"]), analytics_enabled=False, delete_cache=(_KEPT, _KEPT)) as blocks:
        gradio.Markdown(word("heading"))
        queue = gradio.State([])
        with gradio.Accordion(word("settings"), open=False), gradio.Row():
            model = gradio.Dropdown(
                list(models), value=models[0], allow_custom_value=others, interactive=True, scale=3,
                label=word("model" if others else "model_listed"), elem_id="model",
            )  # fmt: skip
            chosen = gradio.Dropdown(list(precisions), value=precision, interactive=True, label=word("precision"))
        with gradio.Tabs() as tabs:
            with gradio.Tab(word("read_tab"), id="read"):
                to_correct = _read_tab(handlers, model, chosen, pages)
            if handlers.corrections is not None:
                with gradio.Tab(word("correct_tab"), id="correct"):
                    _correct_tab(handlers, model, chosen, queue, tabs, *to_correct)
    return blocks


def _read_tab(handlers: Handlers, model: gradio.Dropdown, precision: gradio.Dropdown, pages: bool) -> tuple:
    """The tab for reading; returns its button "correct this", if any, and the state that holds the result."""
    source, read = gradio.State(None), gradio.State(())
    with gradio.Row():
        with gradio.Column(min_width=280):
            kinds = [(word(LINE), LINE), (word(PAGE), PAGE)]
            kind = gradio.Radio(kinds, value=LINE, label=word("kind"), visible=pages, elem_id="kind")
            with gradio.Tabs():
                with gradio.Tab(word("picture_tab")):
                    picture = gradio.Image(
                        sources=["upload", "clipboard"], type="filepath", label=word("picture"), height=240,
                        buttons=[], elem_id="picture",
                    )  # fmt: skip
                with gradio.Tab(word("draw_tab")):
                    gradio.HTML(pad.HTML, js_on_load=pad.SCRIPT, elem_id="pad")
                    drawing = gradio.Textbox(visible=False)
                    with gradio.Row():
                        take = gradio.Button(word("read_drawing"), variant="primary", elem_id="take")
                        wipe = gradio.Button(word("wipe"), elem_id="wipe")
        with gradio.Column(min_width=280):
            shown = gradio.HTML(elem_id="shown")
            text = gradio.Textbox(label=word("text"), interactive=False, lines=1, buttons=["copy"], elem_id="text")
            correct = gradio.Button(
                word("correct_this"), visible=handlers.corrections is not None, elem_id="correct-this"
            )

    def dropped(upload: dict | None) -> Source | None:
        return None if upload is None else Source(Path(upload["path"]), upload["orig_name"] or "picture")

    def drawn(data_url: str) -> Source | ImageError:
        try:
            return handlers.drawing(data_url)
        except ImageError as error:
            return error

    def reading(
        given: Source | ImageError | None, model: str, precision: str, kind: str, request: gradio.Request
    ) -> tuple[str, str, tuple[Item, ...]]:
        language = _language(request)
        if given is None:
            return "", "", ()
        if isinstance(given, ImageError):
            return error_html(given, language), "", ()
        answer = handlers.read(given, Choice(model, precision, kind), language)
        return answer.html, answer.text, answer.items

    read_it: Any = {"fn": reading, "inputs": [source, model, precision, kind], "outputs": [shown, text, read]}
    # the file as uploaded: Gradio itself would decode it without our limits
    picture.change(dropped, picture, source, preprocess=False, **_PRIVATE).then(**read_it, **_TURN, **_PRIVATE)
    take.click(drawn, drawing, source, js=pad.TAKE, **_PRIVATE).then(**read_it, **_TURN, **_PRIVATE)
    wipe.click(None, js=pad.WIPE)
    gradio.on([model.change, precision.change, kind.change], **read_it, **_TURN, **_PRIVATE)
    return correct, read


def _correct_tab(
    handlers: Handlers,
    model: gradio.Dropdown,
    precision: gradio.Dropdown,
    queue: gradio.State,
    tabs: gradio.Tabs,
    correct: gradio.Button,
    read: gradio.State,
) -> None:
    """The tab for correcting."""
    with gradio.Row():
        with gradio.Column(min_width=280):
            files = gradio.File(
                file_count="multiple", file_types=["image"], label=word("pictures"), height=140, elem_id="files"
            )
            left = gradio.HTML(elem_id="left")
        with gradio.Column(min_width=280, scale=2):
            shown = gradio.HTML(elem_id="current")
            corrected = gradio.Textbox(label=word("corrected"), interactive=True, elem_id="corrected")
            others = gradio.Radio([], label=word("alternatives"), visible=False, elem_id="others")
            with gradio.Row():
                save = gradio.Button(word("save"), variant="primary", elem_id="save")
                skip = gradio.Button(word("skip"), elem_id="skip")
            done = gradio.HTML(elem_id="done")

    def added(paths: list[str] | None, queue: list[Item]) -> list[Item]:
        return [*queue, *(Item(Source(Path(path), Path(path).name)) for path in paths or ())]

    def taken(items: tuple[Item, ...], queue: list[Item]) -> tuple[list[Item], gradio.Tabs]:
        return [*items, *queue], gradio.Tabs(selected="correct")

    def first(queue: list[Item], model: str, precision: str, request: gradio.Request) -> tuple:
        queue, html, left = handlers.first(queue, Choice(model, precision), _language(request))
        item = queue[0] if queue else None
        choices = list(item.alternatives) if item else []
        radio = gradio.Radio(choices, value=None, visible=len(choices) > 1)
        return queue, html, left, (item.text or "") if item else "", radio

    def saved(queue: list[Item], text: str, model: str, precision: str, request: gradio.Request) -> tuple:
        return handlers.save(queue, text, Choice(model, precision), _language(request))

    def skipped(queue: list[Item]) -> tuple[list[Item], str]:
        return queue[1:], ""

    show: Any = {"fn": first, "inputs": [queue, model, precision], "outputs": [queue, shown, left, corrected, others]}
    show |= _TURN | _PRIVATE
    gradio.on([tabs.select], **show)
    files.upload(added, [files, queue], queue, **_PRIVATE).then(lambda: None, None, files, **_PRIVATE).then(**show)
    correct.click(taken, [read, queue], [queue, tabs], **_PRIVATE).then(**show)
    saving = gradio.on(
        [save.click, corrected.submit], saved, [queue, corrected, model, precision], [queue, done], **_TURN, **_PRIVATE
    )
    saving.success(**show)
    skip.click(skipped, queue, [queue, done], **_PRIVATE).then(**show)
    others.input(lambda one: one, others, corrected, **_PRIVATE)


def _language(request: gradio.Request) -> str:
    return language_of(request.headers.get("accept-language", ""))
