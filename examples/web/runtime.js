// ONNX Runtime Web: WebGPU where there is one, else WebAssembly with SIMD on one thread, which needs no special headers.
const FOLDER = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;

/** The runtime, and the name of what it runs on: "webgpu" or "wasm". */
export async function loadRuntime(wanted = "auto") {
  let kind = "wasm";
  if (wanted !== "wasm" && navigator.gpu) {
    const adapter = await navigator.gpu.requestAdapter().catch(() => null);
    if (adapter) kind = "webgpu";
  }
  const ort = await import(`${FOLDER}${kind === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs"}`);
  ort.env.wasm.wasmPaths = FOLDER;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  return { ort, kind };
}

/** The server's answer with one of the files that prepare.py makes. */
export async function prepared(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} is not there: run "python examples/web/prepare.py" first`);
  return answer;
}

/** A session of an ONNX file. */
export async function session({ ort, kind }, path) {
  const file = new Uint8Array(await (await prepared(path)).arrayBuffer());
  try {
    return await ort.InferenceSession.create(file, { executionProviders: [kind, "wasm"] });
  } catch (error) {
    if (kind === "wasm") throw error;
    return ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  }
}
