// An extension of the editor: one entry of its menu for each of the pages for people. It runs in the editor's page, not in ours.
// @ts-expect-error the editor serves this module
import { app } from "/scripts/app.js";

const PAGES = [["home", "Home"], ["run", "Run"], ["gallery", "Gallery"], ["lab", "Lab"], ["system", "System"]];

app.registerExtension({
  name: "sigmagraph.pages",
  commands: PAGES.map(([path, label]) => ({
    id: `sigmagraph.pages.${path}`,
    label: `${label} (sigmagraph)`,
    icon: "pi pi-external-link",
    function: () => window.open(`/${path}`, "_blank"),
  })),
  menuCommands: [{ path: ["sigmagraph"], commands: PAGES.map(([path]) => `sigmagraph.pages.${path}`) }],
});
