// Pictures with transparent pixels. The library drops alpha without blending, but a 2D canvas stores a pixel of alpha 0
// as black. WebGL gives the pixels as they are in the file.

/** How a picture is decoded: its colours are those of the file. */
export const AS_THEY_ARE = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

// Side of the parts that WebGL gets, pixels. Every WebGL takes textures of this size.
const PART = 2048;

/** An ImageBitmap without its alpha: itself if it is opaque or if there is no WebGL, else an opaque canvas. */
export async function opaque(bitmap) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  if (isOpaque(context.getImageData(0, 0, width, height).data)) return bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl) return bitmap;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  for (let y = 0; y < height; y += PART) {
    for (let x = 0; x < width; x += PART) {
      const part = new ImageData(Math.min(PART, width - x), Math.min(PART, height - y));
      const given = await createImageBitmap(bitmap, x, y, part.width, part.height, AS_THEY_ARE);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, given);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
      gl.readPixels(0, 0, part.width, part.height, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(part.data.buffer));
      for (let i = 3; i < part.data.length; i += 4) part.data[i] = 255;
      context.putImageData(part, x, y);
    }
  }
  return canvas;
}

function isOpaque(data) {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}
