// Crops of a picture: one bilinear affine, after area averaging where the picture shrinks. What `warp` of
// hih_align/crops.py computes. Pictures are ImageData (RGBA), crops are RGB.

// Sources larger than this many pixels per crop pixel are averaged first.
const REDUCE_ABOVE = 1.5;

/** (size, size, 3) uint8 RGB of a picture by an affine from image to crop pixels, black outside. */
export function warp(picture, matrix, size) {
  const [a, b, c, d, e, f] = matrix;
  const determinant = a * e - b * d;
  const reduction = Math.abs(determinant) ** -0.5;
  const shrink = reduction > REDUCE_ABOVE ? reduction : 1;
  const xs = [];
  const ys = [];
  for (const u of [-c, size - 1 - c]) {
    for (const v of [-f, size - 1 - f]) {
      xs.push((e * u - b * v) / determinant);
      ys.push((a * v - d * u) / determinant);
    }
  }
  const margin = 2 * shrink + 1;
  const inside = (value, limit) => Math.min(Math.max(value, 0), limit);
  const x0 = inside(Math.floor(Math.min(...xs) - margin), picture.width);
  const x1 = inside(Math.ceil(Math.max(...xs) + margin) + 1, picture.width);
  const y0 = inside(Math.floor(Math.min(...ys) - margin), picture.height);
  const y1 = inside(Math.ceil(Math.max(...ys) + margin) + 1, picture.height);
  const output = new Uint8Array(size * size * 3);
  if (x1 <= x0 || y1 <= y0) return output;
  let part = cut(picture, x0, y0, x1 - x0, y1 - y0);
  let [sx, sy] = [1, 1];
  if (shrink > 1) {
    const width = Math.max(1, roundHalfEven((x1 - x0) / shrink));
    const height = Math.max(1, roundHalfEven((y1 - y0) / shrink));
    [sx, sy] = [width / (x1 - x0), height / (y1 - y0)];
    part = averaged(part, width, height);
  }
  // averaging keeps the edges of pixels: q + 0.5 = (p - x0 + 0.5) * s
  const left = 0.5 / sx - 0.5 + x0;
  const top = 0.5 / sy - 0.5 + y0;
  bilinear(part, [a / sx, b / sy, c + a * left + b * top, d / sx, e / sy, f + d * left + e * top], size, output);
  return output;
}

function cut(picture, x, y, width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let row = 0, to = 0; row < height; row += 1) {
    let from = ((y + row) * picture.width + x) * 4;
    for (let column = 0; column < width; column += 1, from += 4) {
      data[to++] = picture.data[from];
      data[to++] = picture.data[from + 1];
      data[to++] = picture.data[from + 2];
    }
  }
  return { data, width, height };
}

/** A picture shrunk by the mean of the area that each new pixel covers: OpenCV's INTER_AREA. */
export function averaged(part, width, height) {
  const rows = shares(part.height, height);
  const columns = shares(part.width, width);
  const narrow = new Float32Array(width * part.height * 3);
  for (let y = 0; y < part.height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      let [red, green, blue] = [0, 0, 0];
      for (const [from, share] of columns[x]) {
        const at = (y * part.width + from) * 3;
        red += share * part.data[at];
        green += share * part.data[at + 1];
        blue += share * part.data[at + 2];
      }
      const to = (y * width + x) * 3;
      narrow[to] = red;
      narrow[to + 1] = green;
      narrow[to + 2] = blue;
    }
  }
  const data = new Uint8Array(width * height * 3);
  const stride = width * 3;
  for (let y = 0; y < height; y += 1) {
    for (let k = 0; k < stride; k += 1) {
      let sum = 0;
      for (const [from, share] of rows[y]) sum += share * narrow[from * stride + k];
      data[y * stride + k] = Math.round(sum);
    }
  }
  return { data, width, height };
}

/** For each new pixel of a line the old ones that it covers, and their shares of it. */
function shares(old, count) {
  const scale = old / count;
  return Array.from({ length: count }, (_, n) => {
    const [start, end] = [n * scale, Math.min((n + 1) * scale, old)];
    const found = [];
    for (let p = Math.floor(start); p < end - 1e-9; p += 1) {
      const share = (Math.min(p + 1, end) - Math.max(p, start)) / (end - start);
      if (share > 1e-9) found.push([p, share]);
    }
    return found;
  });
}

function bilinear(part, [a, b, c, d, e, f], size, output) {
  const determinant = a * e - b * d;
  const { data, width, height } = part;
  const stride = width * 3;
  let to = 0;
  for (let v = 0; v < size; v += 1) {
    for (let u = 0; u < size; u += 1, to += 3) {
      const x = (e * (u - c) - b * (v - f)) / determinant;
      const y = (a * (v - f) - d * (u - c)) / determinant;
      const [x0, y0] = [Math.floor(x), Math.floor(y)];
      if (x0 < -1 || y0 < -1 || x0 >= width || y0 >= height) continue;
      const [fx, fy] = [x - x0, y - y0];
      for (let k = 0; k < 3; k += 1) {
        const at = y0 * stride + x0 * 3 + k;
        const left = x0 >= 0;
        const right = x0 + 1 < width;
        let value = 0;
        if (y0 >= 0) value += (1 - fy) * ((left ? (1 - fx) * data[at] : 0) + (right ? fx * data[at + 3] : 0));
        if (y0 + 1 < height) {
          value += fy * ((left ? (1 - fx) * data[at + stride] : 0) + (right ? fx * data[at + stride + 3] : 0));
        }
        output[to + k] = Math.round(value);
      }
    }
  }
}

/** As Python rounds: halves to the even neighbour. */
function roundHalfEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}
