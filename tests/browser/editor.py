"""The editor as a person uses it, for both generations of the page."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.serving import Server

KNOWN_FAULT = "reading 'id'"  # 1.27.10 throws this once at boot, against ComfyUI itself too


@dataclass
class Editor:
    """One page."""

    page: Any
    server: Server
    version: str
    shots: Path | None
    timeouts: type[Exception]
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self._heard(str(error)))

    @property
    def is_new(self) -> bool:
        return self.version != "1.27.10"

    def _heard(self, error: str) -> None:
        if self.is_new or KNOWN_FAULT not in error:
            self.errors.append(error)

    def open(self) -> None:
        """Load the page and wait until it can be used."""
        self.page.goto(self.server.url, wait_until="domcontentloaded")
        self.up()

    def up(self) -> None:
        """Wait until the graph is there and the socket is open."""
        self.page.wait_for_function("() => window.app?.graph && app.api?.socket?.readyState === 1", timeout=120_000)
        self.page.wait_for_timeout(2000)

    def shot(self, name: str) -> None:
        """A picture of the page, where one asked for them."""
        if self.shots is not None:
            self.page.screenshot(path=self.shots / f"{name}-{self.version}.png")

    def template(self, name: str) -> None:
        """Open a template from the dialog; it opens by itself on the first visit."""
        card = self.page.locator(f'[data-testid="template-workflow-{name}"]')
        try:
            card.first.wait_for(timeout=20_000)
        except self.timeouts:
            self.page.get_by_role("button", name="Templates").first.click()
            card.first.wait_for()
        self.shot("templates")
        card.first.click()
        self.page.wait_for_function(f"() => app.extensionManager.workflow.activeWorkflow?.path?.includes('{name}')")
        self.page.wait_for_function("() => app.graph._nodes.length > 0")
        self.page.wait_for_timeout(500)

    def widget(self, node: str, name: str, value: Any) -> None:
        """Change a widget as its own editor would."""
        self.page.evaluate(
            """([type, name, value]) => {
                const node = app.graph._nodes.find((each) => each.type === type);
                const widget = node.widgets.find((each) => each.name === name);
                widget.value = value;
                widget.callback?.(value);
                app.graph.setDirtyCanvas(true, true);
            }""",
            [node, name, value],
        )

    def run(self) -> str:
        """Press Run; the id of the job."""
        with self.page.expect_response(lambda r: r.url.endswith("/api/prompt") and r.request.method == "POST") as sent:
            self.page.locator('[data-testid="queue-button"]').first.click()
        assert sent.value.status == 200, sent.value.text()
        return str(sent.value.json()["prompt_id"])

    def progress(self) -> None:
        """Wait until the page itself knows how far a node is."""
        self.page.wait_for_function(
            "() => app.graph._nodes.some((node) => node.progress > 0 && node.progress < 1)", timeout=60_000
        )

    def picture(self, node: str) -> str:
        """Wait until the node shows a picture; its address."""
        shown = self.page.wait_for_function(
            """(type) => {
                const node = app.graph._nodes.find((each) => each.type === type);
                const image = node?.imgs?.[0];
                return image?.complete && image.naturalWidth > 0 ? image.src : null;
            }""",
            arg=node,
        )
        return str(shown.json_value())

    def cancel(self) -> None:
        """Press the button that stops what runs."""
        self.page.locator('button[aria-label="Cancel current run"]:not([disabled])').first.click()

    def save(self, name: str) -> None:
        """Ctrl+S, and a name."""
        self.page.evaluate("() => { void app.extensionManager.command.execute('Comfy.SaveWorkflow'); }")
        field = self.page.get_by_role("dialog").locator("input").last
        field.wait_for()
        field.fill(name)
        path = f"workflows%2F{name}.json"
        with self.page.expect_response(lambda r: path in r.url and r.request.method == "POST") as sent:
            field.press("Enter")
        assert sent.value.status == 200

    def reopen(self, name: str) -> dict[str, Any]:
        """Open a saved workflow from the side bar; its colour and the number of nodes."""
        title = re.compile(rf"^\s*{name}(\.json)?\s*$")
        item = self.page.locator(".comfyui-workflows-browse").get_by_text(title)
        if not item.count():
            self.page.get_by_role("button", name="Workflows (w)").first.click()
        item.first.wait_for()
        self.shot("workflows")
        item.first.click()
        active = "app.extensionManager.workflow.activeWorkflow?.path === `workflows/${name}.json`"
        self.page.wait_for_function(f"(name) => {active} && app.graph._nodes.length > 1", arg=name)
        self.page.wait_for_timeout(1000)
        return dict(
            self.page.evaluate(
                """() => {
                    const node = app.graph._nodes.find((each) => each.type === 'EmptyImage');
                    return {
                        nodes: app.graph._nodes.length,
                        color: node.widgets.find((widget) => widget.name === 'color').value,
                    };
                }"""
            )
        )
