// The page: a photograph or the camera comes in, landmarks are drawn over it.
import { Aligner } from "./aligner.js";
import { AS_THEY_ARE, opaque } from "./alpha.js";
import { Detector, SAME } from "./detector.js";
import { distinct, overlap } from "./geometry.js";
import { loadRuntime } from "./runtime.js";

const [SURE, UNSURE] = [[80, 255, 80], [255, 40, 40]];
// A camera's face is lost below this mean score, and found again by the detector.
const LOST = 0.5;
// Time after which the detector looks for further faces of a camera, ms.
const AGAIN = 1000;
// Largest photograph, pixels.
const MOST = 50e6;
// Longer side to which smaller pictures are enlarged on the page, pixels.
const SHOWN = 1280;

const $ = (id) => document.getElementById(id);
const canvas = $("picture");
const context = canvas.getContext("2d");
const state = { source: null, picture: null, scale: 1, faces: [], stream: null, drag: null, wish: 0 };
window.hih = state; // for tests, and for the curious

const wanted = new URLSearchParams(location.search).get("runtime") ?? "auto";
const ready = load();

async function load() {
  say("The models are loading ...");
  try {
    const runtime = await loadRuntime(wanted);
    state.aligner = await Aligner.load(runtime, "models");
    state.detector = await Detector.load(runtime, "models").catch(() => null);
    state.kind = runtime.kind;
    const finds = state.detector ? "" : " The detector's file is missing: draw boxes with the mouse.";
    say(`Drop a photograph here, or open the camera. ${state.aligner.about.name} runs on ${runtime.kind}.${finds}`);
  } catch (error) {
    say(error.message);
    throw error;
  }
}

function say(text) {
  $("status").textContent = text;
}

/** A photograph as a picture that a canvas draws, upright and opaque, its colours as they are. */
export async function decode(blob) {
  const bitmap = await createImageBitmap(blob, AS_THEY_ARE).catch(() => {
    throw new Error(`${blob.name ?? "This file"} is no picture that this browser can read`);
  });
  if (bitmap.width * bitmap.height > MOST) {
    const megapixels = ((bitmap.width * bitmap.height) / 1e6).toFixed(1);
    throw new Error(`${blob.name ?? "The picture"} has ${megapixels} megapixels: this page takes at most ${MOST / 1e6}`);
  }
  return blob.type === "image/jpeg" ? bitmap : opaque(bitmap);
}

/**
 * The visitor wishes for something else: the camera ends. The result says whether this wish is still the last one. Ask
 * it after each `await`: a large photograph may be ready after a small one that was chosen later.
 */
function wish() {
  stopCamera();
  state.wish += 1;
  const mine = state.wish;
  return () => mine === state.wish;
}

/** Show a photograph and find its faces. */
async function photograph(blob) {
  const current = wish();
  await ready;
  let source;
  try {
    source = await decode(blob);
  } catch (error) {
    if (current()) say(error.message);
    return;
  }
  if (!current()) return;
  state.source = source;
  const { width, height } = source;
  const original = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  original.drawImage(source, 0, 0);
  state.picture = original.getImageData(0, 0, width, height);
  resize(width, height);
  show([]);
  if (!state.detector) return;
  say("Faces are being found ...");
  const found = await state.detector.find(source, width, height);
  if (current()) await align(found, current);
}

/** Fit the canvas to a picture. A small picture is enlarged, so that its points can be seen. */
function resize(width, height) {
  state.scale = Math.min(Math.max(1, SHOWN / Math.max(width, height)), 4);
  [canvas.width, canvas.height] = [width, height].map((side) => Math.round(side * state.scale));
}

async function align(boxes, current) {
  const begun = performance.now();
  const faces = [];
  for (const { box, roll } of boxes) {
    faces.push(await state.aligner.align(state.picture, box, roll));
    if (!current()) return;
  }
  const drawn = state.faces; // while these were aligned
  show([...faces.filter((face) => state.aligner.isFace(face)), ...drawn]);
  const each = boxes.length ? `, ${Math.round((performance.now() - begun) / boxes.length)} ms each` : "";
  const count = state.faces.length === 1 ? "1 face" : `${state.faces.length} faces`;
  const rank = "The scores are not calibrated: they rank points, but are no probabilities.";
  say(`${count}${each}, on ${state.kind}. You can draw a box around a face with the mouse.${state.aligner.calibrated ? "" : ` ${rank}`}`);
}

function show(faces) {
  state.faces = faces;
  paint();
  $("save").disabled = !faces.length;
}

/** The picture and its faces. */
function paint() {
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(state.source, 0, 0, canvas.width, canvas.height);
  context.setTransform(state.scale, 0, 0, state.scale, 0, 0); // from here on in pixels of the picture
  state.faces.forEach(draw);
}

function draw(face) {
  const xs = face.points.map((p) => p[0]);
  const ys = face.points.map((p) => p[1]);
  const side = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  const least = Math.max(canvas.width, canvas.height) / state.scale / 450;
  const radius = Math.max(side / 110, Math.min(least, side / 45));
  context.lineWidth = radius / 2.5;
  context.strokeStyle = "rgb(255 255 255 / 75%)";
  for (const contour of state.aligner.about.contours) {
    context.beginPath();
    for (const index of contour) context.lineTo(face.points[index][0] + 0.5, face.points[index][1] + 0.5);
    context.stroke();
  }
  face.points.forEach(([x, y], index) => {
    const share = face.scores[index];
    context.fillStyle = `rgb(${SURE.map((value, k) => Math.round(share * value + (1 - share) * UNSURE[k])).join(" ")})`;
    context.beginPath();
    context.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
    context.fill();
  });
}

async function camera() {
  const opened = state.stream !== null;
  const current = wish();
  if (opened) return;
  await ready;
  let stream;
  try {
    if (!navigator.mediaDevices) throw new Error("browsers give it to pages of localhost and of https addresses alone");
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  } catch (error) {
    if (current()) say(`The camera cannot be opened: ${error.message}`);
    return;
  }
  if (!current()) {
    end(stream); // while the browser asked for leave, the visitor clicked again or chose a photograph
    return;
  }
  state.stream = stream;
  $("camera").textContent = "Stop the camera";
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  if (!current()) return;
  state.source = new OffscreenCanvas(0, 0); // the frame that is shown is the one that was computed
  state.faces = [];
  follow(video, arrivals(video, current), current, 0, performance.now());
}

/**
 * A function that says whether a frame has arrived since it last said yes. A screen shows more frames than most cameras
 * send. As long as the browser has reported no frame, the function always says yes.
 */
function arrivals(video, current) {
  let [reports, arrived] = [false, true];
  const note = () => {
    reports = arrived = true;
    if (current()) video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback?.(note);
  return () => {
    const yes = arrived || !reports;
    arrived = false;
    return yes;
  };
}

function end(stream) {
  stream.getTracks().forEach((track) => track.stop());
}

function stopCamera() {
  if (state.stream) end(state.stream);
  state.stream = null;
  $("camera").textContent = "Open the camera";
}

/** Frame after frame: faces are followed by their own points, and further ones are looked for from time to time. */
async function follow(video, arrived, current, rate, last, looked = -AGAIN) {
  if (!current()) return;
  if (!arrived()) {
    requestAnimationFrame(() => follow(video, arrived, current, rate, last, looked));
    return;
  }
  const [width, height] = [video.videoWidth, video.videoHeight];
  if (state.source.width !== width || state.source.height !== height) { // at first, and when a phone is turned
    [state.source.width, state.source.height] = [width, height];
    resize(width, height);
    state.faces = [];
  }
  const frame = state.source.getContext("2d", { willReadFrequently: true });
  frame.drawImage(video, 0, 0, width, height);
  state.picture = frame.getImageData(0, 0, width, height);
  // two that are followed may have moved to the same face
  const places = distinct(state.faces.map((face) => state.aligner.follow(face)), 2 * SAME);
  if (state.detector && (!places.length || last - looked >= AGAIN)) {
    looked = last;
    const found = await state.detector.find(state.source, width, height, false);
    places.push(...found.filter(({ box }) => places.every((other) => overlap(box, other.box) < SAME)));
  }
  if (!current()) return;
  const faces = [];
  for (const { box, roll, reach } of places) {
    faces.push({ ...(await state.aligner.once(state.picture, box, roll)), reach });
  }
  if (!current()) return;
  show(faces.filter((face) => state.aligner.score(face) >= LOST * state.aligner.limitScale));
  const now = performance.now();
  const newest = 1000 / Math.max(now - last, 1);
  const smooth = rate ? rate + 0.2 * (newest - rate) : newest;
  const count = state.faces.length === 1 ? "1 face" : `${state.faces.length} faces`;
  say(`${count}, ${smooth.toFixed(1)} frames a second, on ${state.kind}`);
  requestAnimationFrame(() => follow(video, arrived, current, smooth, now, looked));
}

function save() {
  const { scheme, name } = state.aligner.about;
  const listed = state.faces.map(({ points, scores, box }) => ({ bbox: box, scheme, points, scores, model: name }));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(listed, null, 1)], { type: "application/json" }));
  link.download = "landmarks.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.x) / box.width) * state.picture.width - 0.5,
    ((event.clientY - box.y) / box.height) * state.picture.height - 0.5,
  ];
}

canvas.addEventListener("pointerdown", (event) => {
  if (!state.picture || state.stream || event.button !== 0) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  state.drag = place(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (!state.drag) return;
  const [x, y] = place(event);
  show(state.faces);
  context.lineWidth = 2 / state.scale;
  context.strokeStyle = "#ffd54a";
  context.strokeRect(state.drag[0] + 0.5, state.drag[1] + 0.5, x - state.drag[0], y - state.drag[1]);
});
canvas.addEventListener("pointercancel", () => {
  if (!state.drag) return;
  state.drag = null; // a finger scrolls the page
  paint();
});
canvas.addEventListener("pointerup", async (event) => {
  if (!state.drag) return;
  const [[x, y], [u, v]] = [state.drag, place(event)];
  state.drag = null;
  const box = [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
  if (box[2] - box[0] < state.picture.width / 100 || box[3] - box[1] < state.picture.height / 100) return;
  const { picture } = state;
  const face = await state.aligner.align(picture, box);
  if (picture !== state.picture) return; // meanwhile another photograph was chosen
  show([...state.faces, face]);
});

$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // else the same file, chosen again after the camera, would be no change
  if (file) photograph(file);
});
$("camera").addEventListener("click", camera);
$("save").addEventListener("click", save);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) photograph(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files[0]) photograph(event.clipboardData.files[0]);
});
