// comfy-ui-client of npm: uploads, runs, fetches pictures; then everything it can look at.
import { readFileSync } from "node:fs";
import { ComfyUIClient } from "comfy-ui-client";

const [url, graph, picture] = process.argv.slice(2);
const client = new ComfyUIClient(url.replace("http://", ""), "npm-client");
await client.connect();
const uploaded = await client.uploadImage(readFileSync(picture), "npm.png", true);
const found = await client.getImages(JSON.parse(readFileSync(graph, "utf8")));
const images = Object.values(found).flat();
const first = Buffer.from(await images[0].blob.arrayBuffer());
const queue = await client.getQueue(), stats = await client.getSystemStats(), info = await client.getObjectInfo("KSampler");
await client.disconnect();
const said = JSON.stringify({ uploaded: uploaded.name, images: images.length, png: first.toString("latin1", 1, 4),
  queue: queue.queue_running.length + queue.queue_pending.length, devices: stats.devices.length, info: "KSampler" in info });
setTimeout(() => console.log(said), 300); // the package logs its closing as a line of JSON
