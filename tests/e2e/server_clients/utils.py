"""comfyui-utils: three jobs at once, each with its place in the queue, its progress and its picture."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from comfyui_utils import comfy

address, path = sys.argv[1].removeprefix("http://"), sys.argv[2]
graph = json.loads(Path(path).read_text("utf-8"))


class Seen(comfy.Callbacks):
    """What one job said."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.steps: list[int] = []
        self.outputs: list[dict[str, Any]] = []

    async def queue_position(self, position: int) -> None:
        self.places.append(position)

    async def in_progress(self, node_id: int, progress: int, total: int) -> None:
        self.steps += [progress] if total else []

    async def completed(self, outputs: dict[str, Any], cached: bool) -> None:
        self.outputs.append(outputs["images"][0] | {"cached": cached})


async def main() -> None:
    api, seen = comfy.ComfyAPI(address), [Seen() for _ in range(3)]
    graphs = [graph | {"5": {**graph["5"], "inputs": graph["5"]["inputs"] | {"seed": seed}}} for seed in (7, 8, 9)]
    await asyncio.gather(*(api.submit(each, one) for each, one in zip(graphs, seen, strict=True)))
    again = Seen()
    await api.submit(graphs[0], again)
    sizes: list[int] = []

    async def keep(data: Any) -> None:
        sizes.append(len(data.read()))

    names = [{key: one.outputs[0][key] for key in ("filename", "subfolder", "type")} for one in seen]
    for name in names:
        await api.fetch(name, keep)
    sys.stdout.write(
        json.dumps(
            {
                "images": len({name["filename"] for name in names}),
                "fetched": len(sizes) == 3 and min(sizes) > 100,
                "waited": max(max(one.places, default=0) for one in seen) >= 1,
                "steps": all(one.steps for one in seen),
                "again": again.outputs[0]["filename"] == names[0]["filename"],
            }
        )
    )


asyncio.run(main())
