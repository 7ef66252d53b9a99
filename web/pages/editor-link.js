// An extension of the editor: one entry of its menu for each of the pages for people. It runs in the editor's page, not in ours.
// @ts-expect-error the editor serves this module
import { app } from "/scripts/app.js";

const PAGES = [["home", "Home"], ["run", "Run"], ["gallery", "Gallery"], ["lab", "Lab"], ["system", "System"]];

const asked = new URLSearchParams(location.search).get("sigmagraph-job"); // read before the editor writes its address anew

/** The workflow of the job that the link names: its drawing, or its prompt, which the editor draws. */
async function openJob() {
  if (!asked) return;
  history.replaceState(null, "", location.pathname + location.hash);
  const response = await fetch(`/jobs/${encodeURIComponent(asked)}`);
  if (!response.ok) return;
  const { workflow } = await response.json();
  const drawing = workflow.extra_data?.extra_pnginfo?.workflow;
  if (drawing) await app.loadGraphData(drawing);
  else await app.loadApiJson(workflow.prompt, `${asked.slice(0, 8)}.json`);
}

app.registerExtension({
  name: "sigmagraph.pages",
  setup: () => { window.setTimeout(openJob, 500); }, // after the editor has restored what was open before
  commands: PAGES.map(([path, label]) => ({
    id: `sigmagraph.pages.${path}`,
    label: `${label} (sigmagraph)`,
    icon: "pi pi-external-link",
    function: () => window.open(`/${path}`, "_blank"),
  })),
  menuCommands: [{ path: ["sigmagraph"], commands: PAGES.map(([path]) => `sigmagraph.pages.${path}`) }],
});
