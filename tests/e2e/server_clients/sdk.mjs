// @saintno/comfyui-sdk: the widest coverage of any client.
import { readFileSync } from "node:fs";
import { CallWrapper, ComfyApi, PromptBuilder } from "@saintno/comfyui-sdk";

const [url, path, picture] = process.argv.slice(2);
const graph = JSON.parse(readFileSync(path, "utf8"));
const api = await new ComfyApi(url, "sdk-client").init().waitForReady();
const seen = new Set();
const builder = new PromptBuilder(graph, ["seed"], ["images"]).setInputNode("seed", "5.inputs.seed").setOutputNode("images", "7");
const output = await new Promise((resolve, reject) => {
  new CallWrapper(api, builder.input("seed", 12))
    .onPending(() => seen.add("pending"))
    .onStart(() => seen.add("start"))
    .onProgress(() => seen.add("progress"))
    .onPreview(() => seen.add("preview"))
    .onOutput(() => seen.add("output"))
    .onFinished((data) => resolve(data))
    .onFailed((error) => reject(error))
    .run();
});
const uploaded = await api.uploadImage(readFileSync(picture), "sdk.png");
const stats = await api.getSystemStats();
const found = {
  images: output.images.images.length,
  seen: [...seen].sort(),
  uploaded: uploaded.info.filename,
  devices: stats.devices.length,
  checkpoints: (await api.getCheckpoints()).length,
  samplers: ((await api.getSamplerInfo()).sampler?.[0] ?? []).length > 10,
  queue: await api.getQueue(),
  histories: Object.keys(await api.getHistories()).length > 0,
  embeddings: await api.getEmbeddings(),
  settings: typeof (await api.getSettings()),
  interrupted: (await api.interrupt()) ?? null,
};
console.log(JSON.stringify(found));
process.exit(0);
