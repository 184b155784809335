"""The pad for drawing a line: an HTML canvas and its script."""

HTML = "<canvas></canvas>"

STYLE = """
#pad canvas { display: block; width: 100%; height: 140px; touch-action: none; cursor: crosshair; background: #fff;
  border: 1px solid var(--border-color-primary); border-radius: 6px; }
"""

SCRIPT = """
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d"), scale = 2;
new ResizeObserver(() => {  // it has no size before its tab is opened
  const width = scale * canvas.clientWidth, height = scale * canvas.clientHeight;
  if (!width || (width === canvas.width && height === canvas.height)) return;
  canvas.width = width;
  canvas.height = height;
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = 4 * scale;
}).observe(canvas);
let last = null;
canvas.addEventListener("pointerdown", (event) => {
  last = [scale * event.offsetX, scale * event.offsetY];
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!last) return;
  const next = [scale * event.offsetX, scale * event.offsetY];
  pen.beginPath(); pen.moveTo(...last); pen.lineTo(...next); pen.stroke();
  last = next;
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
"""

# What the buttons run: the first sends the drawing to the server, the second clears it.
TAKE = '() => document.querySelector("#pad canvas").toDataURL("image/png")'
WIPE = """() => {
  const canvas = document.querySelector("#pad canvas");
  canvas.getContext("2d").fillRect(0, 0, canvas.width, canvas.height);
}"""
