// Box -> square crop -> network pixels, and back; roll. What hih_align/crops.py and hih_align/roll.py compute.
// Points are [x, y], boxes [x1, y1, x2, y2]; 0 is the centre of the first pixel. Roll is in degrees, clockwise.

// Left eye, right eye, nose tip and mouth corners of an upright frontal face.
const UPRIGHT = [[-17.6, -20.7], [17.6, -20.7], [0, -0.6], [-14.6, 20], [14.6, 20]];

/** The square with a box's centre and `ratio` times its longer side, turned by `roll`. */
export function squareCrop(box, ratio, size, roll = 0) {
  const [x1, y1, x2, y2] = box;
  return { x: (x1 + x2) / 2, y: (y1 + y2) / 2, side: ratio * Math.max(x2 - x1, y2 - y1), size, roll };
}

/** [a, b, c, d, e, f]: u = a x + b y + c and v = d x + e y + f, from image to crop pixels. */
export function matrixOf(crop) {
  const scale = crop.size / crop.side;
  const c = Math.cos((crop.roll * Math.PI) / 180) * scale;
  const s = Math.sin((crop.roll * Math.PI) / 180) * scale;
  const middle = (crop.size - 1) / 2;
  return [c, s, middle - c * crop.x - s * crop.y, -s, c, middle + s * crop.x - c * crop.y];
}

/** A point of the crop in pixels of the image. */
export function toImage(crop, [u, v]) {
  const [a, b, c, d, e, f] = matrixOf(crop);
  const determinant = a * e - b * d;
  return [(e * (u - c) - b * (v - f)) / determinant, (a * (v - f) - d * (u - c)) / determinant];
}

/** The smallest box around points. */
export function tightBox(points) {
  const xs = points.map((p) => p[0]);
  const ys = points.map((p) => p[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** A point turned clockwise about the origin. */
export function turn([x, y], degrees) {
  const c = Math.cos((degrees * Math.PI) / 180);
  const s = Math.sin((degrees * Math.PI) / 180);
  return [c * x - s * y, s * x + c * y];
}

/** Roll of a face, from the similarity that maps an upright face onto its five points. */
export function rollOf(five) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const mx = mean(five.map((p) => p[0]));
  const my = mean(five.map((p) => p[1]));
  const ux = mean(UPRIGHT.map((p) => p[0]));
  const uy = mean(UPRIGHT.map((p) => p[1]));
  let real = 0;
  let imaginary = 0;
  five.forEach(([x, y], i) => {
    const [a, b, p, q] = [x - mx, y - my, UPRIGHT[i][0] - ux, UPRIGHT[i][1] - uy];
    real += a * p + b * q;
    imaginary += b * p - a * q;
  });
  return (Math.atan2(imaginary, real) * 180) / Math.PI;
}

/** How far a box reaches beyond a tight box: left, top, right, bottom, in shares of the tight box's longer side. */
export function reachOf(box, tight) {
  const side = Math.max(tight[2] - tight[0], tight[3] - tight[1]);
  return box.map((value, i) => ((value - tight[i]) / side) * (i < 2 ? -1 : 1));
}

/**
 * The box of a face in its own frame, where it lies when it is turned upright about its centre. It reaches beyond the
 * tight box by `reach`, see `reachOf`; null: it is tight.
 */
export function uprightBox(points, roll, reach = null) {
  const tight = tightBox(points.map((p) => turn(p, -roll)));
  const side = Math.max(tight[2] - tight[0], tight[3] - tight[1]);
  const beyond = (value, i) => value + side * (reach === null ? 0 : reach[i]) * (i < 2 ? -1 : 1);
  const [x1, y1, x2, y2] = tight.map(beyond);
  const [x, y] = turn([(x1 + x2) / 2, (y1 + y2) / 2], roll);
  const [w, h] = [(x2 - x1) / 2, (y2 - y1) / 2];
  return [x - w, y - h, x + w, y + h];
}

/** How far a box's square is from that of the points: what hih_align/passes.py calls `off`. */
export function off(box, own) {
  const longer = (b) => Math.max(b[2] - b[0], b[3] - b[1]);
  const shift = Math.hypot(own[0] + own[2] - box[0] - box[2], own[1] + own[3] - box[1] - box[3]) / 2;
  return Math.max(shift / longer(own), Math.abs(Math.log(longer(box) / longer(own))));
}

/** The faces whose boxes overlap no box before them by more than `most` (intersection over union). */
export function distinct(faces, most) {
  const kept = [];
  for (const face of faces) {
    if (kept.every((other) => overlap(face.box, other.box) <= most)) kept.push(face);
  }
  return kept;
}

/** Intersection of two boxes over their union. */
export function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (area(a) + area(b) - width * height);
}
