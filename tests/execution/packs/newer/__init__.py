# ruff: noqa: ANN001, ANN003, ANN201, ANN206  # as authors write them
"""A pack of the newer schema, as its authors write them: every hook and every kind of dynamic input once."""

from comfy_api.latest import ComfyAPI, ComfyExtension, io, ui

SEEN: list[str] = []


class Repeats(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="N.Repeats",
            display_name="Repeats",
            category="newer",
            description="Repeats a string.",
            inputs=[
                io.String.Input("text", multiline=True, default="x", tooltip="what"),
                io.Int.Input("times", default=2, min=1, max=9, display_mode=io.NumberDisplay.slider),
                io.Combo.Input("case", options=["as it is", "upper"], default="as it is"),
                io.AnyType.Input("anything", optional=True, lazy=True),
            ],
            outputs=[io.String.Output(display_name="TEXT", tooltip="repeated"), io.Int.Output("count")],
        )

    @classmethod
    def validate_inputs(cls, text):
        return "no question marks" if "?" in text else True

    @classmethod
    def fingerprint_inputs(cls, text, **rest):
        return len(text)

    @classmethod
    def check_lazy_status(cls, text, times, case, anything=None):
        return ["anything"] if times > 2 and anything is None else []

    @classmethod
    async def execute(cls, text, times, case, anything=None):
        SEEN.append(text)
        made = text * times
        return io.NodeOutput(made.upper() if case == "upper" else made, times)


class Tells(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="N.Tells",
            category="newer",
            inputs=[io.AnyType.Input("value"), io.String.Input("prompt", default="")],
            outputs=[],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, value, prompt=""):
        told = cls.hidden.prompt[cls.hidden.unique_id]["class_type"] if cls.hidden.prompt else None
        return io.NodeOutput(ui={"shown": [value, cls.hidden.unique_id, told, prompt]})


class Chooses(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        template = io.Autogrow.TemplatePrefix(io.Int.Input("number"), prefix="n", min=1, max=4)
        named = io.Autogrow.TemplateNames(io.Float.Input("f", optional=True), names=["a", "b"], min=0)
        size = [
            io.DynamicCombo.Option("one", [io.Int.Input("width", min=1)]),
            io.DynamicCombo.Option("none", []),
        ]
        inputs = [
            io.DynamicCombo.Input("size", options=size),
            io.Autogrow.Input("numbers", template=template),
            io.Autogrow.Input("named", template=named, optional=True),
            io.MultiType.Input(io.Float.Input("scale", default=1.0), [io.Int]),
            io.Custom("OWN").Input("own", optional=True),
        ]
        return io.Schema(node_id="N.Chooses", inputs=inputs, outputs=[io.AnyType.Output()])

    @classmethod
    def execute(cls, size, numbers, scale, named=None, own=None):
        return io.NodeOutput([size, numbers, named, scale])


class Passes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        one = io.MatchType.Template("T", allowed_types=[io.Int, io.String])
        inputs = [io.MatchType.Input("value", template=one)]
        return io.Schema("N.Passes", inputs=inputs, outputs=[io.MatchType.Output(template=one)])

    @classmethod
    def execute(cls, value):
        return io.NodeOutput(value) if value else io.NodeOutput(block_execution="nothing to pass")


class Grows(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema("N.Grows", inputs=[], outputs=[io.String.Output()], enable_expand=True)

    @classmethod
    def execute(cls):
        inner = {"class_type": "N.Repeats", "inputs": {"text": "ab", "times": 2, "case": "as it is"}}
        return io.NodeOutput(["inner", 0], expand={"inner": inner})


class Shows(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema("N.Shows", inputs=[io.String.Input("text")], outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, text):
        return io.NodeOutput(ui=ui.PreviewText(text))


class Newer(ComfyExtension):
    async def on_load(self):
        await ComfyAPI().node_replacement.register(
            io.NodeReplace(
                new_node_id="N.Repeats",
                old_node_id="N.Echoes",
                old_widget_ids=["words", "count"],
                input_mapping=[
                    {"new_id": "text", "old_id": "words"},
                    {"new_id": "times", "old_id": "count"},
                    {"new_id": "case", "set_value": "upper"},
                ],
                output_mapping=[{"old_idx": 0, "new_idx": 1}, {"old_idx": 1, "new_idx": 0}],
            )
        )

    async def get_node_list(self):
        return [Repeats, Tells, Chooses, Passes, Grows, Shows]


async def comfy_entrypoint():
    return Newer()
