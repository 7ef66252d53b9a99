// @comfyorg/sdk: run, events, assets, cancel, typed refusals.
import { readFileSync } from "node:fs";
import { Comfy } from "@comfyorg/sdk";

const [url, path, picture] = process.argv.slice(2);
process.env.COMFY_BASE_URL = url;
const graph = JSON.parse(readFileSync(path, "utf8"));
Object.assign(graph["5"].inputs, { seed: 4242, steps: 24 }); // long enough to be seen at work
const client = new Comfy();
const found = {};
const job = await client.submit(await client.workflows.fromJson(graph));
const seen = new Set();
for await (const event of job.events()) seen.add(event.type ?? event.kind ?? event.constructor.name);
found.events = [...seen].sort();
const done = await job.result();
const bytes = await done.getOutputs("7")[0].toBytes();
found.png = Buffer.from(bytes.slice(1, 4)).toString();
const copied = {
  1: { class_type: "LoadImage", inputs: { image: "?" } },
  2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "copied" } },
};
const workflow = await client.workflows.fromJson(copied);
workflow.setInput("1", "image", client.assets.fromFile(picture));
found.copied = (await client.run(workflow)).getOutputs("2").length;
try {
  await client.run(await client.workflows.fromJson({ 1: { class_type: "No", inputs: {} } }));
} catch (error) {
  found.refused = error.code ?? error.constructor.name;
}
graph["5"].inputs.steps = 5000;
const long = await client.submit(await client.workflows.fromJson(graph));
while ((await long.refresh()).status === "queued") await new Promise((resolve) => setTimeout(resolve, 100));
await long.cancel();
found.cancelled = (await long.wait()).status;
console.log(JSON.stringify(found));
process.exit(0);
