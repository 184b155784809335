"""Annotated pages: PPOCRLabel, Label Studio, LabelMe, VIA, PAGE XML. Each file as its own tool writes it."""

import base64
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ms_ocr_handwritten.data.formats import find_format
from ms_ocr_handwritten.data.record import Columns
from ms_ocr_handwritten.errors import DataError
from ms_ocr_handwritten.lmdb.build import BuildOptions, BuildReport, ReadOptions, build_lmdb
from ms_ocr_handwritten.lmdb.store import LmdbReader

BOXES = {"上": (20, 30, 100, 24), "下": (40, 80, 150, 30)}  # text -> x, y, width, height of a coloured line
COLOURS = {"上": (200, 30, 10), "下": (0, 90, 250)}  # BGR


@pytest.fixture
def page(tmp_path) -> np.ndarray:
    """A page of 300 x 150 px with two lines, each of its own colours, saved as pages/page 1.png."""
    picture = np.full((150, 300, 3), 255, np.uint8)
    for text, (x, y, width, height) in BOXES.items():
        picture[y : y + height, x : x + width] = COLOURS[text]
        picture[y : y + height // 2, x : x + width // 3] //= 2  # neither turned nor mirrored looks the same
    (tmp_path / "pages").mkdir()
    cv2.imwrite(str(tmp_path / "pages" / "page 1.png"), picture)
    return picture


def built(tmp_path: Path, source: Path, **read) -> tuple[dict[str, np.ndarray], BuildReport]:
    """Label -> BGR pixels of the samples, and the report."""
    report = build_lmdb(tmp_path / "out", source, on_bad_sample="skip", options=BuildOptions(read=ReadOptions(**read)))
    reader = LmdbReader(tmp_path / "out")
    samples = (reader.read(index) for index in range(len(reader)))
    assert all(reader.beside(index, "page") for index in range(len(reader)))
    return {label: cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) for image, label in samples}, report


def is_cut(line: np.ndarray, page: np.ndarray, text: str) -> bool:
    x, y, width, height = BOXES[text]
    return np.array_equal(line, page[y : y + height, x : x + width])


def corners(text: str) -> list[list[int]]:
    x, y, width, height = BOXES[text]
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def saved(path: Path, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def test_ppocrlabel(tmp_path, page):
    """As PPOCRLabel 3.1's savePPlabel writes it: the page named from the folder above, one line of JSON."""
    boxes = [{"transcription": text, "points": corners(text), "difficult": False} for text in BOXES]
    boxes += [{"transcription": "###", "points": corners("上"), "difficult": False}]
    boxes += [{"transcription": "x", "points": corners("上"), "difficult": True}]
    rows = f"pages/page 1.png\t{json.dumps(boxes, ensure_ascii=False)}\n"
    path = saved(tmp_path / "pages" / "Label.txt", rows + "pages/none.png\t[]\npages/page 1.png\t{broken\n")
    assert find_format(path) == find_format(tmp_path / "pages") == ("ppocrlabel", path)
    lines, report = built(tmp_path, path)
    assert list(lines) == list(BOXES) and all(is_cut(lines[text], page, text) for text in BOXES)
    reasons = [one.reason for one in report.skipped]
    assert reasons[0] == f"{path}:1: box 2: marked as unreadable (###)"
    assert reasons[1] == f"{path}:1: box 3: marked as unreadable (difficult)"
    assert (
        f"{path}:2: the page 'pages/none.png' is not in" in reasons[2] and f"{path}:3: no `page TAB JSON" in reasons[3]
    )


def label_studio(address: str, **more) -> dict:
    """A task as Label Studio 1.x exports the OCR template: percent of the page, region and text share an id."""
    result = []
    for number, (text, (x, y, width, height)) in enumerate(BOXES.items()):
        common = {
            "id": f"r{number}",
            "original_width": 300,
            "original_height": 150,
            "image_rotation": 0,
            "to_name": "image",
        }
        value = {"x": x / 3, "y": y / 1.5, "width": width / 3, "height": height / 1.5, "rotation": 0}
        if number:
            points = [[px / 3, py / 1.5] for px, py in corners(text)]
            shape = {
                **common,
                "type": "polygonlabels",
                "from_name": "poly",
                "value": {"points": points, "closed": True},
            }
        else:
            shape = {**common, "type": "rectangle", "from_name": "bbox", "value": value}
        result += [
            shape,
            {**common, "type": "textarea", "from_name": "transcription", "value": {**value, "text": [text]}},
        ]
    result.append({"type": "textarea", "id": "loose", "from_name": "transcription", "value": {"text": ["no box"]}})
    annotations = [{"id": 8, "was_cancelled": True, "result": []}, {"id": 9, "was_cancelled": False, "result": result}]
    return {"id": 7, "annotations": annotations, "data": {"ocr": address}, **more}


@pytest.mark.parametrize(
    "address",
    [
        "/data/local-files/?d=pages/page%201.png",
        "http://host/some/page%201.png",
        "s3://bucket/page 1.png",
        "/data/upload/1/page 1.png",
        "/data/upload/1/0a1b2c3d-page%201.png",  # uploaded under that name, and now beside the export as it was
    ],
)
def test_label_studio(tmp_path, page, address):
    path = saved(tmp_path / "export.json", [label_studio(address), {"id": 8, "data": {}, "annotations": []}, 5])
    assert find_format(path) == ("label-studio", path)
    lines, report = built(tmp_path, path, image_root=tmp_path / "pages")
    assert sorted(lines) == sorted(BOXES) and all(is_cut(lines[text], page, text) for text in BOXES)
    reasons = [one.reason for one in report.skipped]
    assert reasons[0] == f"{path}: task 7: region loose: has a text but no box; draw one, or remove it"
    assert "task 8: its data names no image" in reasons[1] and "task 3: not a valid export" in reasons[2]


def test_pages_may_be_as_large_as_those_that_are_read(tmp_path, page):
    """A photograph of 20 megapixels, which `ms-ocr page` reads and whose corrected lines are to be learnt."""
    large = np.full((4000, 5000, 3), 255, np.uint8)
    large[:150, :300] = page
    cv2.imwrite(str(tmp_path / "pages" / "page 1.png"), large)
    path = saved(tmp_path / "export.json", [label_studio("page 1.png")])
    lines, _ = built(tmp_path, path, image_root=tmp_path / "pages")
    assert sorted(lines) == sorted(BOXES) and all(is_cut(lines[text], page, text) for text in BOXES)


def test_label_studio_turns_a_rectangle_about_its_corner(tmp_path):
    """A line that runs down the page: 100 x 20 px, turned by 90 degrees about its upper left corner at (200, 10)."""
    picture = np.full((150, 300, 3), 255, np.uint8)
    picture[10:110, 180:200] = (9, 9, 9)
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    value = {"x": 200 / 3, "y": 10 / 1.5, "width": 100 / 3, "height": 20 / 1.5, "rotation": 90}
    common = {"id": "a", "original_width": 300, "original_height": 150}
    result = [
        {**common, "type": "rectanglelabels", "value": {**value, "rectanglelabels": ["Text"]}},
        {**common, "type": "textarea", "value": {**value, "text": ["x"]}},
    ]
    task = {"id": 1, "annotations": [{"result": result}], "data": {"image": "p.png"}}
    lines, report = built(tmp_path, saved(tmp_path / "export.json", [task]))
    assert report.skipped == () and (lines["x"] == 9).all() and lines["x"].size == 100 * 20 * 3


def test_a_short_export_of_label_studio_says_what_to_export(tmp_path):
    path = saved(tmp_path / "min.json", [{"ocr": "a.png", "transcription": ["x"], "bbox": []}])
    with pytest.raises(DataError, match=r"min.json: not a list of tasks .*; export as JSON \(not JSON-MIN\)"):
        build_lmdb(tmp_path / "out", path, options=BuildOptions(form="label-studio"))


@pytest.mark.parametrize("embedded", [False, True])
def test_labelme(tmp_path, page, embedded):
    """As LabelMe 5 and 6 write it; the picture beside the file, or within it."""
    picture = tmp_path / "pages" / "page 1.png"
    shapes = [
        {
            "label": "上",
            "points": [[20, 30], [120, 54]],
            "shape_type": "rectangle",
            "group_id": None,
            "description": "",
        },
        {"label": "text", "points": corners("下"), "shape_type": "polygon", "description": "下", "flags": {}},
        {"label": "dot", "points": [[1, 1]], "shape_type": "point", "description": None, "flags": {}},
    ]
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": picture.name, "imageData": None}
    content |= {"imageHeight": 150, "imageWidth": 300}
    if embedded:
        content["imageData"] = base64.b64encode(picture.read_bytes()).decode()
        picture.unlink()
    path = saved(tmp_path / "pages" / "page 1.json", content)
    assert find_format(path) == ("labelme", path) and find_format(path.parent) == ("labelme", path.parent)
    lines, report = built(tmp_path, path.parent)
    assert list(lines) == list(BOXES) and all(is_cut(lines[text], page, text) for text in BOXES)
    assert [one.reason for one in report.skipped] == [
        f"{path}: shape 2: a point encloses no line; draw a rectangle or a polygon"
    ]


@pytest.mark.parametrize("project", [False, True])
def test_via(tmp_path, page, project):
    """As VIA 2.0 saves a project, or exports its annotations."""
    x, y, width, height = BOXES["上"]
    regions = [
        {
            "shape_attributes": {"name": "rect", "x": x, "y": y, "width": width, "height": height},
            "region_attributes": {"type": "line", "Text": "上"},
        },
        {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [one for one, _ in corners("下")],
                "all_points_y": [one for _, one in corners("下")],
            },
            "region_attributes": {"type": "line", "Text": "下"},
        },
        {"shape_attributes": {"name": "circle", "cx": 1, "cy": 1, "r": 1}, "region_attributes": {"Text": "o"}},
    ]
    pages = {"page 1.png-1": {"filename": "page 1.png", "size": 1, "regions": regions, "file_attributes": {}}}
    content = {"_via_settings": {}, "_via_img_metadata": pages, "_via_attributes": {}} if project else pages
    path = saved(tmp_path / "pages" / "via.json", content)
    assert find_format(path) == ("via", path)
    lines, report = built(tmp_path, path, columns=Columns(text="Text"))
    assert list(lines) == list(BOXES) and all(is_cut(lines[text], page, text) for text in BOXES)
    assert [one.reason for one in report.skipped] == [
        f"{path}: page 1.png: region 2: a circle encloses no line; draw a rectangle or a polygon"
    ]


def page_xml(lines: str, picture: str = "page 1.png") -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">'
        f'<Page imageFilename="{picture}" imageWidth="300" imageHeight="150"><TextRegion id="r">{lines}</TextRegion>'
        "</Page></PcGts>"
    )


def text_line(text: str) -> str:
    points = " ".join(f"{x},{y}" for x, y in corners(text))
    return (
        f'<TextLine id="{text}"><Coords points="{points}"/><TextEquiv><Unicode>{text}</Unicode></TextEquiv></TextLine>'
    )


def test_page_xml(tmp_path, page):
    """What the readers of PAGE, ALTO and hOCR make of files is tested in test_transcripts; here, what becomes of it."""
    empty = '<TextLine id="none"><Coords points="1,1 9,1 9,9 1,9"/></TextLine>'
    path = saved(tmp_path / "pages" / "page 1.xml", page_xml("".join(map(text_line, BOXES)) + empty))
    assert find_format(path.parent) == ("pages", path.parent)
    found, report = built(tmp_path, path.parent)
    assert list(found) == list(BOXES) and all(is_cut(found[text], page, text) for text in BOXES)
    assert [one.where for one in report.skipped] == [f"{path}: line none"]


def test_pages_may_have_as_many_pixels_as_those_that_are_read(tmp_path):
    """A4 at 400 dpi has 15.5 megapixels, at 600 dpi 34.8."""
    page = np.full((7016, 4961), 255, np.uint8)
    page[1000:1060, 500:900] = 40
    (tmp_path / "pages").mkdir()
    cv2.imwrite(str(tmp_path / "pages" / "page 1.png"), page, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    xml = page_xml(text_line("上")).replace('"300"', '"4961"').replace('"150"', '"7016"')
    xml = xml.replace("20,30 120,30 120,54 20,54", "500,1000 900,1000 900,1060 500,1060")
    found, report = built(tmp_path, saved(tmp_path / "pages" / "page 1.xml", xml))
    assert report.skipped == () and found["上"].shape == (60, 400, 3) and (found["上"] == 40).all()


def test_a_page_without_its_picture_is_named_and_ends_nothing(tmp_path, page):
    folder = tmp_path / "pages"
    saved(folder / "a.xml", page_xml(text_line("上"), "lost.png"))
    saved(folder / "b.xml", page_xml(text_line("上")))
    saved(folder / "c.xml", page_xml(text_line("上"))[:-40])
    found, report = built(tmp_path, folder)
    assert list(found) == ["上"]
    assert "lost.png" in report.skipped[0].reason and "c.xml: not well-formed XML" in report.skipped[1].reason


def test_null_is_no_text(tmp_path, page):
    """In JSON; as a label it was the word None."""
    folder = tmp_path / "pages"
    boxes = [{"transcription": text, "points": corners("上")} for text in (None, "上")]
    _, report = built(tmp_path, saved(folder / "Label.txt", f"page 1.png\t{json.dumps(boxes)}\n"))
    assert report.written == 1 and "its transcription is empty (null), not a text" in report.skipped[0].reason
    (tmp_path / "out").rename(tmp_path / "first")
    shapes = [{"label": text, "points": corners("上"), "shape_type": "polygon"} for text in (None, "上")]
    content = {"shapes": shapes, "imagePath": "page 1.png", "imageData": None}
    _, report = built(tmp_path, saved(folder / "page 1.json", content))
    assert report.written == 1 and "shape 0: its label is empty (null), not a text" in report.skipped[0].reason
    (tmp_path / "out").rename(tmp_path / "second")
    shape = {"name": "polygon", "all_points_x": [20, 120, 120, 20], "all_points_y": [30, 30, 54, 54]}
    regions = [{"shape_attributes": shape, "region_attributes": {"text": text}} for text in (None, "上")]
    content = {"p": {"filename": "page 1.png", "size": 1, "regions": regions, "file_attributes": {}}}
    _, report = built(tmp_path, saved(folder / "via.json", content))
    assert report.written == 1 and "region 0: the attribute text is empty (null)" in report.skipped[0].reason
    (tmp_path / "out").rename(tmp_path / "third")
    task = label_studio("page 1.png")
    first, second = (part["value"] for part in task["annotations"][1]["result"][1:4:2])
    first["text"], second["text"] = [None], [None, second["text"][0]]
    lines, report = built(tmp_path, saved(tmp_path / "export.json", [task]), image_root=folder)
    assert sorted(lines) == sorted(list(BOXES)[1:])
    assert "region r0: the label of the line is empty" in report.skipped[0].reason


def test_nesting_without_end_is_a_fault_of_its_line(tmp_path, page):
    row = f"page 1.png\t{json.dumps([{'transcription': '上', 'points': corners('上')}])}\n"
    rows = row + "page 1.png\t" + 100_000 * "[" + "\n"
    found, report = built(tmp_path, saved(tmp_path / "pages" / "Label.txt", rows))
    assert list(found) == ["上"] and "Label.txt:2: no `page TAB JSON list of boxes`" in report.skipped[0].reason


def test_points_that_nobody_foresaw_end_no_build(tmp_path, page):
    boxes = [{"transcription": "odd", "points": {"x": [1]}}, {"transcription": "上", "points": corners("上")}]
    boxes += [
        {"transcription": "odd", "points": points} for points in ([], [[1, "a"]], [[0, 0]] * 4, None, [[1e300, 1]] * 4)
    ]
    row = f"page 1.png\t{json.dumps(boxes, ensure_ascii=False)}\n"
    found, report = built(tmp_path, saved(tmp_path / "pages" / "Label.txt", row))
    assert list(found) == ["上"] and len(report.skipped) == 6
    assert all("Label.txt:1: box " in one.reason for one in report.skipped)


def test_each_page_is_decoded_once_and_let_go_of(tmp_path, page, monkeypatch):
    from ms_ocr_handwritten.data import pages

    decoded = []
    load = pages.load_image
    monkeypatch.setattr(pages, "load_image", lambda source, **more: decoded.append(source) or load(source, **more))
    boxes = [{"transcription": text, "points": corners(text), "difficult": False} for text in BOXES] * 20
    content = io.BytesIO()
    Image.fromarray(page).save(content, "PNG")
    rows = "".join(f"p{number}.png\t{json.dumps(boxes)}\n" for number in range(3))
    for number in range(3):
        (tmp_path / f"p{number}.png").write_bytes(content.getvalue())
    built(tmp_path, saved(tmp_path / "Label.txt", rows))
    assert sorted(path.name for path in decoded) == ["p0.png", "p1.png", "p2.png"]
