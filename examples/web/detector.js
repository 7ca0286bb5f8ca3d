// YuNet, which finds faces: its ONNX file, decoded as OpenCV's FaceDetectorYN does, and its boxes as the network wants them.
import { distinct, rollOf, tightBox, turn } from "./geometry.js";
import { session } from "./runtime.js";

const SIDE = 640;
// Longer sides in which a picture is looked at, both in one square: small faces and large ones.
const SIZES = [504, 120];
const THRESHOLD = 0.6;
// An upright face that is large enough has at least this score.
const SURE = 0.9;
// Two boxes with a larger overlap hold the same face.
export const SAME = 0.3;
// Where the tight box of landmarks lies in YuNet's box, in shares of its longer side: down, width, height.
const [DOWN, WIDE, HIGH] = [0.127, 0.784, 0.757];

export class Detector {
  static async load(runtime, folder) {
    return new Detector(runtime.ort, await session(runtime, `${folder}/face_detection_yunet_2023mar.onnx`));
  }

  constructor(ort, network) {
    Object.assign(this, { ort, network });
    this.canvas = new OffscreenCanvas(SIDE, SIDE);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
  }

  /**
   * Boxes, rolls and scores of the faces in a picture (anything that a canvas draws), best first. If no face is certain,
   * the picture is also searched in quarter turns, unless `turns` is false.
   */
  async find(source, width, height, turns = true) {
    const faces = await this.look(source, width, height, 0);
    if (turns && !faces.some((face) => face.score >= SURE)) {
      for (const degrees of [90, 180, 270]) faces.push(...(await this.look(source, width, height, degrees)));
    }
    return merged(faces).map(({ box, five, score }) => ({ ...mapped(box, five), score }));
  }

  /** What the network finds in the picture turned so that faces of roll `degrees` are upright. */
  async look(source, width, height, degrees) {
    const turned = degrees % 180 ? [height, width] : [width, height];
    const tiles = this.paint(source, [width, height], turned, degrees);
    const { data } = this.context.getImageData(0, 0, SIDE, SIDE);
    const input = new Float32Array(3 * SIDE * SIDE);
    for (let i = 0; i < SIDE * SIDE; i += 1) {
      for (let k = 0; k < 3; k += 1) input[k * SIDE * SIDE + i] = data[4 * i + 2 - k]; // blue, green, red
    }
    const name = this.network.inputNames[0];
    const found = await this.network.run({ [name]: new this.ort.Tensor("float32", input, [1, 3, SIDE, SIDE]) });
    const faces = merged(tiles.flatMap((tile) => inTile(candidates(found), tile)));
    const back = ([x, y]) => {
      const [u, v] = turn([x - (turned[0] - 1) / 2, y - (turned[1] - 1) / 2], degrees);
      return [u + (width - 1) / 2, v + (height - 1) / 2];
    };
    return faces.map(({ box, five, score }) => ({
      box: tightBox([back(box.slice(0, 2)), back(box.slice(2))]),
      five: five.map(back),
      score,
    }));
  }

  paint(source, [width, height], turned, degrees) {
    const context = this.context;
    context.fillStyle = "black";
    context.fillRect(0, 0, SIDE, SIDE);
    context.imageSmoothingQuality = "high";
    const tall = turned[1] > turned[0];
    let at = 0;
    return SIZES.map((size) => {
      const scale = Math.min(1, size / Math.max(width, height));
      const [left, top] = tall ? [at, 0] : [0, at];
      const tile = { scale, left, top, width: turned[0] * scale, height: turned[1] * scale };
      context.save();
      context.translate(left + tile.width / 2, top + tile.height / 2);
      context.rotate((-degrees * Math.PI) / 180);
      context.drawImage(source, (-width * scale) / 2, (-height * scale) / 2, width * scale, height * scale);
      context.restore();
      at += Math.ceil(tall ? tile.width : tile.height) + 16;
      return tile;
    });
  }
}

function candidates(found) {
  const faces = [];
  for (const stride of [8, 16, 32]) {
    const columns = SIDE / stride;
    const [cls, obj, box, kps] = ["cls", "obj", "bbox", "kps"].map((name) => found[`${name}_${stride}`].data);
    for (let i = 0; i < cls.length; i += 1) {
      const unit = (value) => Math.min(Math.max(value, 0), 1);
      const score = Math.sqrt(unit(cls[i]) * unit(obj[i]));
      if (score < THRESHOLD) continue;
      const [column, row] = [i % columns, Math.floor(i / columns)];
      const [x, y] = [(column + box[4 * i]) * stride, (row + box[4 * i + 1]) * stride];
      const [w, h] = [Math.exp(box[4 * i + 2]) * stride, Math.exp(box[4 * i + 3]) * stride];
      const five = [0, 1, 2, 3, 4].map((n) => [
        (kps[10 * i + 2 * n] + column) * stride,
        (kps[10 * i + 2 * n + 1] + row) * stride,
      ]);
      faces.push({ box: [x - w / 2, y - h / 2, x + w / 2, y + h / 2], five, score });
    }
  }
  return faces;
}

/** The faces whose centre lies in a tile, in pixels of the picture. */
function inTile(faces, { scale, left, top, width, height }) {
  const here = ({ box }) => {
    const [x, y] = [(box[0] + box[2]) / 2 - left, (box[1] + box[3]) / 2 - top];
    return x >= 0 && y >= 0 && x < width && y < height;
  };
  const back = ([x, y]) => [(x - left + 0.5) / scale - 0.5, (y - top + 0.5) / scale - 0.5];
  return faces.filter(here).map(({ box, five, score }) => ({
    box: [...back(box.slice(0, 2)), ...back(box.slice(2))],
    five: five.map(back),
    score,
  }));
}

function merged(faces) {
  return distinct([...faces].sort((a, b) => b.score - a.score), SAME);
}

/** YuNet's box as the network was trained on: brow to chin and jaw to jaw. */
function mapped(box, five) {
  const longer = Math.max(box[2] - box[0], box[3] - box[1]);
  const roll = rollOf(five);
  const [dx, dy] = turn([0, DOWN * longer], roll);
  const [x, y] = [(box[0] + box[2]) / 2 + dx, (box[1] + box[3]) / 2 + dy];
  const [w, h] = [(WIDE * longer) / 2, (HIGH * longer) / 2];
  return { box: [x - w, y - h, x + w, y + h], roll };
}
