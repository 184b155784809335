"""Reading with the embedded model: RapidOCR's recogniser and this package's backends, on the same images.

By default the images are the example lines side by side, cropped to ratios uniform from 2:1 to 25:1. RapidOCR uses only
its recogniser (`use_det=False, use_cls=False`), and for lists the faster of its two ways.
"""

from functools import partial

import numpy as np
from clock import Timing, ratio, single_calls, whole_lists
from images import drawn_lines, evenly, folder_lines
from options import Options
from peers import OwnRecognizer, RapidOcr, those_there_are
from report import Claim, Section, Table, progress

SINGLE = 24  # images for single calls
BACKENDS = (("torch", "fp32"), ("auto", "auto"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "auto"))
AUTO = 1  # of these; torch is always available
COLUMNS = ("lines", "reader", "ms a line", "RapidOCR / ours", "texts equal to ours in fp32")


def run(options: Options) -> Section:
    peers, missing = those_there_are([partial(RapidOcr, options.threads)])
    own, missing_own = those_there_are([partial(OwnRecognizer, *kind, options.threads) for kind in BACKENDS])
    sets = {"example lines": drawn_lines(options.list_size, np.random.default_rng(0))}
    if options.images:
        sets["images given"] = evenly(folder_lines(options.images), options.list_size)
    rows, claims, samples = [], [], {}
    for name, images in sets.items():
        for measure, some in ((single_calls, evenly(images, SINGLE)), (whole_lists, images)):
            way = f"{name}, {'one by one' if measure is single_calls else f'list of {len(images)}'}"
            progress(f"embedded: {way}")
            if measure is whole_lists and peers:
                peers[0].choose_mode(evenly(images, 32))
            timings = measure([*peers, *own], some, options.heavy_rounds)
            rows += _rows(way, peers, own, timings)
            samples[way] = {reader: timing.ms for reader, timing in timings.items()}
            claims.append(
                Claim.at_least(
                    f"embedded model, {way}: RapidOCR / ours, auto",
                    1.0,
                    ratio(timings[peers[0].name].ms, timings[own[AUTO].name].ms) if peers else None,
                )
            )
    return Section([Table("Embedded model", COLUMNS, rows, _note(peers, [*missing, *missing_own]))], claims, samples)


def _rows(way: str, peers: list, own: list, timings: dict[str, Timing]) -> list[tuple]:
    exact = timings[own[0].name].texts
    rows = [(way, peer.name, timings[peer.name].median, None, None) for peer in peers]
    for reader in own:
        timing = timings[reader.name]
        equal = sum(text == other for text, other in zip(exact, timing.texts, strict=True))
        rows.append(
            (
                way,
                reader.name,
                timing.median,
                ratio(timings[peers[0].name].ms, timing.ms) if peers else None,
                f"{equal} of {len(exact)}",
            )
        )
    return rows


def _note(peers: list, missing: list[str]) -> str:
    return "; ".join([*(f"RapidOCR reads the last list fastest {peer.mode}" for peer in peers), *missing])
