// A picture and a box -> landmarks. The network's file holds the decoder: crops go in, points and scores come out.
import { matrixOf, off, reachOf, rollOf, squareCrop, toImage, uprightBox } from "./geometry.js";
import { warp } from "./pixels.js";
import { prepared, session } from "./runtime.js";

// Faces that are turned by more than this, degrees, are looked at again upright.
const TURN = 15;
// Weight of the points of the pass before in the points of a refined face, and how fast it falls with the box's error.
const [BEFORE, FADES] = [0.25, 0.15];
// With a lower mean score there is no face.
const NOTHING = 0.25;

export class Aligner {
  static async load(runtime, folder) {
    const about = await (await prepared(`${folder}/model.json`)).json();
    return new Aligner(runtime.ort, await session(runtime, `${folder}/model.onnx`), about);
  }

  constructor(ort, network, about) {
    Object.assign(this, { ort, network, about });
  }

  /** One pass: points in pixels of the crop and of the picture, scores. */
  async once(picture, box, roll = 0) {
    const { input_size: size, crop_ratio: ratio } = this.about;
    const crop = squareCrop(box, ratio, size, roll);
    const pixels = warp(picture, matrixOf(crop), size);
    const found = await this.network.run({ crops: new this.ort.Tensor("uint8", pixels, [1, size, size, 3]) });
    const flat = Array.from(found.points.data);
    const inCrop = Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]);
    return { inCrop, points: inCrop.map((p) => toImage(crop, p)), scores: Array.from(found.scores.data), box, roll };
  }

  /** As many passes as the face needs: turned upright, and in the box of its own points. */
  async align(picture, box, roll = 0) {
    let face = await this.once(picture, box, roll);
    const { refine, refine_above: above, refits, box: reach } = this.about;
    for (let pass = 0; pass < 2 && this.score(face) >= NOTHING * this.limitScale; pass += 1) {
      const turned = this.rollOf(face) - face.roll;
      const by = ((((turned + 180) % 360) + 360) % 360) - 180;
      const next = Math.abs(by) > TURN ? face.roll + by : face.roll;
      const own = refits ? uprightBox(face.points, next, reach) : face.box;
      if (next === face.roll && (pass >= refine || (above !== null && off(face.box, own) <= above))) break;
      const before = face;
      face = await this.once(picture, own, next);
      if (next === before.roll) {
        const weight = BEFORE * Math.exp(-((off(before.box, own) / FADES) ** 2));
        face.points = face.points.map((point, i) => mixed(before.points[i], point, weight));
      }
    }
    return face;
  }

  /** Mean score of a face: a probability, if the model is calibrated. */
  score(face) {
    return face.scores.reduce((sum, value) => sum + value, 0) / face.scores.length;
  }

  /** Whether scores are probabilities. Else they rank points alone. A model.json of an earlier version does not say. */
  get calibrated() {
    return this.about.calibrated !== false;
  }

  /** Factor of the limits of scores (`limit_scale` in Python): below 1 if even clear landmarks have low scores. */
  get limitScale() {
    return this.about.limit_scale ?? 1;
  }

  /** Whether a detection is a face, as far as its scores tell. */
  isFace(face) {
    return !this.calibrated || this.score(face) >= NOTHING * this.limitScale;
  }

  rollOf(face) {
    const mean = (group, axis) => group.reduce((sum, i) => sum + face.points[i][axis], 0) / group.length;
    return rollOf(this.about.five.map((group) => [mean(group, 0), mean(group, 1)]));
  }

  /** The box and the roll in which the face of the next frame of a video is looked for, and the reach of the box. */
  follow(face) {
    const roll = this.rollOf(face);
    const { refits, box } = this.about;
    // a model of selected points does not know the reach: the box in which the face was found shows it
    const reach = refits ? box : (face.reach ?? reachOf(face.box, uprightBox(face.points, roll)));
    return { box: uprightBox(face.points, roll, reach), roll, reach };
  }
}

function mixed(before, now, weight) {
  return now.map((value, axis) => weight * before[axis] + (1 - weight) * value);
}
