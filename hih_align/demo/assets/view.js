// The script of a picture: a box is drawn by dragging, a landmark is chosen by a click, and its name is shown below.
// Gradio runs it once for each picture's element; what the element holds is replaced, so events are caught on the element.
const SVG = "http://www.w3.org/2000/svg";
let start = null;
let rubber = null;
let timer = null;

function place(svg, event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const box = svg.viewBox.baseVal;
  return [
    Math.min(Math.max(point.x, box.x), box.x + box.width),
    Math.min(Math.max(point.y, box.y), box.y + box.height),
  ];
}

function corners(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
}

function end() {
  clearTimeout(timer);
  if (rubber) rubber.remove();
  start = rubber = timer = null;
}

// The picture in which a box is drawn. When a result arrives meanwhile, Gradio takes away the box, or the whole picture.
function drawn() {
  return element.querySelector(".hih-view svg");
}

function begin(svg, event) {
  start = place(svg, event);
  rubber = document.createElementNS(SVG, "rect");
  rubber.setAttribute("class", "hih-rubber");
  svg.append(rubber);
  svg.setPointerCapture(event.pointerId);
}

element.addEventListener("pointerdown", (event) => {
  const svg = event.target.closest(".hih-view svg");
  if (!svg || event.button !== 0 || event.target.closest("circle") || !element.closest("#photo-view")) return;
  if (event.pointerType === "touch") {
    // a short touch scrolls the page, a long one draws
    timer = setTimeout(() => begin(svg, event), 400);
    return;
  }
  event.preventDefault();
  begin(svg, event);
});

element.addEventListener("pointermove", (event) => {
  const svg = start && drawn();
  if (!svg) return;
  svg.append(rubber);
  const [x1, y1, x2, y2] = corners(start, place(svg, event));
  for (const [name, value] of Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 })) {
    rubber.setAttribute(name, value);
  }
});

element.addEventListener("touchmove", (event) => { if (start) event.preventDefault(); }, { passive: false });

element.addEventListener("pointerup", (event) => {
  const svg = start && drawn();
  if (svg) {
    const box = corners(start, place(svg, event));
    const least = Math.max(svg.viewBox.baseVal.width, svg.viewBox.baseVal.height) / 100;
    if (box[2] - box[0] > least && box[3] - box[1] > least) trigger("drawn", { box });
  }
  end();
});

element.addEventListener("pointercancel", end);

element.addEventListener("pointerover", (event) => {
  const point = event.target.closest("circle[data-index]");
  const caption = element.querySelector("figcaption > span");
  if (!caption) return;
  if (caption.dataset.text === undefined) caption.dataset.text = caption.textContent;
  caption.textContent = point ? point.querySelector("title").textContent : caption.dataset.text;
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-view]");
  if (button) {
    const svg = button.closest("figure").querySelector("svg");
    const before = svg.getAttribute("viewBox");
    svg.setAttribute("viewBox", button.dataset.view);
    button.dataset.view = before;
    button.textContent = button.textContent === "Whole picture" ? "Faces" : "Whole picture";
    return;
  }
  const point = event.target.closest("circle[data-index]");
  if (!point) return;
  const face = Number(point.closest("[data-face]").dataset.face);
  trigger("landmark", { face, index: Number(point.dataset.index) });
});
