// @stable-canvas/comfyui-client: adds ?clientId= to every URL.
import { readFileSync } from "node:fs";
import { Client } from "@stable-canvas/comfyui-client";
import WebSocket from "ws";

const [url, path] = process.argv.slice(2);
const graph = JSON.parse(readFileSync(path, "utf8"));
graph["5"].inputs.seed = 13;
const client = new Client({ api_host: new URL(url).host, clientId: "canvas-client", WebSocket, fetch });
await client.connect();
const result = await client.enqueue(graph, { progress: () => undefined });
const found = {
  images: result.images.length,
  queue: await client.getQueue(),
  stats: (await client.getSystemStats()).devices.length,
  embeddings: await client.getEmbeddings(),
  settings: typeof (await client.getSettings()),
  extensions: Array.isArray(await client.getExtensions()),
};
console.log(JSON.stringify(found));
process.exit(0);
