"""The pad to draw a line on: a canvas of the browser and its script."""

HTML = '<canvas width="1600" height="256"></canvas>'

STYLE = """
#pad canvas { width: 100%; touch-action: none; background: #fff; border: 1px solid var(--border-color-primary);
  border-radius: 6px; cursor: crosshair; }
"""

SCRIPT = """
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
const at = (event) => {
  const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
};
pen.fillStyle = "#fff";
pen.fillRect(0, 0, canvas.width, canvas.height);
pen.lineCap = pen.lineJoin = "round";
let last = null;
canvas.addEventListener("pointerdown", (event) => { last = at(event); canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointermove", (event) => {
  if (!last) return;
  const next = at(event);
  pen.lineWidth = canvas.height / 40;
  pen.beginPath(); pen.moveTo(...last); pen.lineTo(...next); pen.stroke();
  last = next;
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
"""

# What the buttons run: the first gives the drawing to the server, the second begins anew.
TAKE = '() => document.querySelector("#pad canvas").toDataURL("image/png")'
WIPE = """() => {
  const canvas = document.querySelector("#pad canvas");
  canvas.getContext("2d").fillRect(0, 0, canvas.width, canvas.height);
}"""
