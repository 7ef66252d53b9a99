"""What a worker tells without a job: one question at a time for each owner, and who used least goes first."""

import asyncio
from typing import Any, cast

import pytest
from aiohttp import web

from sigmagraph.engine.graph.workflow import Workflow, WorkflowNode
from sigmagraph.engine.server.context import JOBS, OWNER
from sigmagraph.engine.server.decoding.pool import Overloaded
from sigmagraph.engine.server.decoding.shares import Shares
from sigmagraph.engine.server.unpriced import MOST_WAITING, SHOWING, levels_told

GRAPH = Workflow({"lab_levels": WorkflowNode("SamplerLevels", {})})


class Asked:
    """A worker that takes a while, and who asked it what when."""

    def __init__(self) -> None:
        self.under_way: list[str] = []
        self.order: list[str] = []
        self.go = asyncio.Event()

    async def show(self, graph: Workflow, owner: str) -> Any:
        assert owner not in self.under_way  # one at a time for each owner
        self.under_way.append(owner)
        self.order.append(owner)
        await self.go.wait()
        await asyncio.sleep(0.001)
        self.under_way.remove(owner)
        return {"lab_levels": {"levels": [owner]}}


async def test_each_owner_asks_one_thing_at_a_time_and_waits_for_one_of_another() -> None:
    asked, shares = Asked(), Shares(2, asyncio.get_running_loop().time)

    def ask(owner: str) -> "asyncio.Task[Any]":
        request = {OWNER: owner}
        holder = type("Request", (dict,), {"app": {JOBS: asked, SHOWING: shares}})(request)
        return asyncio.create_task(levels_told(cast(web.Request, holder), {}, [GRAPH]))

    greedy = [ask("a") for _ in range(MOST_WAITING + 1)]
    await asyncio.sleep(0)
    refused = ask("a")
    with pytest.raises(Overloaded, match=f"{MOST_WAITING} of your questions"):
        await refused
    others = [ask("b"), ask("c")]
    asked.go.set()
    assert await asyncio.gather(*others) == [[["b"]], [["c"]]]
    assert await asyncio.gather(*greedy) == [[["a"]]] * (MOST_WAITING + 1)
    assert {"b", "c"} <= set(asked.order[:4])
    assert (asked.under_way, shares.waiting()) == ([], 0)


@pytest.mark.parametrize(
    ("outputs", "module", "is_taken"),
    [
        (["MODEL"], "custom_nodes.gguf", True),
        (["MODEL", "CLIP", "VAE"], "nodes", True),
        (["INT"], "nodes", True),
        ([["a", "b"]], "nodes", True),
        (["STRING"], "custom_nodes.writer", False),
        (["MODEL", "STRING"], "custom_nodes.writer", False),
        (["MODEL", "LATENT"], "nodes", False),
        (["CONDITIONING"], "nodes", False),
        (["IMAGE"], "nodes", False),
        ([], "nodes", False),
    ],
)
async def test_only_nodes_that_open_a_model_and_plain_values_are_run(
    outputs: list[Any], module: str, is_taken: bool
) -> None:
    asked, known = Asked(), {"Before": {"output": outputs, "python_module": module}}
    asked.go.set()
    app = {JOBS: asked, SHOWING: Shares(2, asyncio.get_running_loop().time)}
    holder = cast(web.Request, type("Request", (dict,), {"app": app})({OWNER: "a"}))
    graph = Workflow({**GRAPH.nodes, "1": WorkflowNode("Before", {})})
    if is_taken:
        assert await levels_told(holder, known, [graph]) == [["a"]]
    else:
        with pytest.raises(
            Exception, match=r"before the model: 'node 1 \(Before\)' is not allowed; expected nodes that"
        ):
            await levels_told(holder, known, [graph])
        assert asked.order == []
