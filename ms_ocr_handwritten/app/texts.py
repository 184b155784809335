"""The page's texts in English and Chinese."""

LANGUAGES = ("en", "zh")

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Handwriting to text", "手写文字识别"),
    "heading": ("## Handwriting to text", "## 手写文字识别"),  # in Markdown
    "read_tab": ("Read", "识别"),
    "correct_tab": ("Correct", "校正"),
    "picture_tab": ("Image", "图片"),
    "draw_tab": ("Draw", "手写"),
    "picture": ("Image: drop, choose or paste", "图片：拖入、选择或粘贴"),
    "kind": ("Content", "图片内容"),
    "line": ("one line", "单行"),
    "page": ("a page", "整页"),
    "read_drawing": ("Read the drawing", "识别手写"),
    "wipe": ("Clear", "清除"),
    "settings": ("Model", "模型"),
    "model": ("Model: a directory or an id", "模型：目录或 ID"),
    "model_listed": ("Model", "模型"),
    "precision": ("Precision", "精度"),
    "text": ("Text", "文字"),
    "correct_this": ("Correct this", "校正此结果"),
    "pictures": ("Images of lines", "单行图片（可多选）"),
    "corrected": ("Correct text (Enter saves)", "正确文字（回车保存）"),
    "alternatives": ("Alternatives", "候选结果"),
    "save": ("Save and next", "保存并继续"),
    "skip": ("Skip", "跳过"),
    # said by the server
    "confidence": ("confidence", "置信度"),
    "nothing_read": ("Nothing was read.", "未识别到文字。"),
    "hover": ("Hover over a character to see its position.", "将指针移到字符上可查看其位置。"),
    "queue": ("lines to correct: {count}", "待校正行数：{count}"),
    "queue_empty": (
        "Nothing to correct: add images above, or press “Correct this” beside a result.",
        "没有待校正的内容：请在上方添加图片，或在识别结果旁点击“校正此结果”。",
    ),
    "saved": ("Saved as line {count} of {path}", "已保存：{path} 第 {count} 行"),
    "notes": ("Before training, check this:", "训练前请留意："),
    "error": ("Error", "错误"),
}


def text(key: str, language: str, **values: object) -> str:
    """The text in one of LANGUAGES; `values` fill its placeholders."""
    return TEXTS[key][LANGUAGES.index(language)].format(**values)


def language_of(accepted: str) -> str:
    """The language for an `Accept-Language` header ("zh-CN,zh;q=0.9"): Chinese if it comes first, else English."""
    return "zh" if accepted.strip().lower().startswith("zh") else "en"
