"""Settings of `sigmagraph serve`: defaults, then one TOML file, then the environment, then flags; the later wins."""

import json
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from sigmagraph.engine.errors import BadValue, EngineError, MissingFile, suggestion
from sigmagraph.engine.execution.cache.settings import CacheSettings
from sigmagraph.engine.redaction import without_password
from sigmagraph.engine.units import DAY_S

__all__ = ["PREFIX", "Settings", "as_markdown", "as_toml", "load_settings", "misspelt", "options"]

PREFIX = "SIGMAGRAPH_"
ADDRESSES = ("database", "artifacts", "public_url", "traces")
"""Settings that may carry a password, which is nobody's to read over a shoulder or in a ticket."""


DEVICE = r"(cpu|mps|(cuda|xpu)(:[0-9]+)?(\+(cuda|xpu):[0-9]+)?)"


class Settings(BaseModel):
    """Everything that can be set. A field `x` is `x = ...` in the file, SIGMAGRAPH_X, and the flag `--x`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    host: str = Field("127.0.0.1", description="address to listen on; anything but loopback needs keys")
    port: int = Field(8188, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    no_keys: bool = Field(False, description="ask for no key although keys were made; on loopback only")
    hosts: tuple[str, ...] = Field((), description="further names under which a browser may reach a loopback server")
    home: Path | None = Field(None, description="folder that holds models/ and input/")
    output: Path | None = Field(None, description="where pictures go; default: <home>/output")
    database: str | None = Field(None, description="SQLAlchemy URL; default: SQLite at <home>/user/jobs.sqlite")
    workflows: Path | None = Field(None, description="workflows the templates dialog shows; default: those shipped")
    frontend: Path | None = Field(None, description="folder of another frontend build; default: the installed package")
    extra_model_paths: tuple[Path, ...] = Field((), description="extra_model_paths.yaml files of ComfyUI")
    comfyui_dir: Path | None = Field(
        None, description="a ComfyUI installation whose models, embeddings and tokenizers are used too"
    )
    aliases: Path | None = Field(
        None, description="further names of weight files, a TOML table; default: <home>/models/aliases.toml"
    )
    comfyui: str = Field(
        "0.46", pattern=r"^\d{1,4}(\.\d{1,4}){0,2}$", description="whose numbers a bare sampler name means"
    )
    custom_nodes: tuple[Path, ...] = Field((), description="folders of ComfyUI node packs to load; runs their code")
    pack_routes: bool = Field(False, description="serve the routes of node packs, to keys with the scope admin")
    pack_web: bool = Field(False, description="give the editor the scripts of node packs; they run in its page")
    plugins: tuple[Path, ...] = Field(
        (),
        description="Python files with samplers and schedules; runs their code",
        json_schema_extra={"flag": "plugin"},
    )
    watch_edits: bool = Field(False, description="debug: fail a pack's node that edits an input in place")
    endpoints: Path | None = Field(None, description="folder of published workflows; default: those shipped")
    demo: bool = Field(False, description="run the published workflows on the demo checkpoint")
    public_url: str | None = Field(None, description="address in URLs of published workflows; default: the request's")
    requests_per_minute: float = Field(600.0, gt=0, description="calls of published workflows a key may make")
    keep_requests_s: float = Field(
        3600.0, gt=0, le=1e9, description="how long an ended request of a published workflow can be asked for"
    )
    keep_outputs_s: float = Field(
        7 * DAY_S, gt=0, le=1e9, description="how long pictures of published workflows and their URLs stay"
    )
    cors_origin: str | None = Field(None, description="origin (or *) that other pages may call from")
    compress: bool = Field(False, description="gzip JSON and text where the client takes it")
    max_upload_mb: float = Field(100.0, gt=0, description="largest request body")
    max_assets_mb: float = Field(2048.0, gt=0, description="what a key may keep of uploaded assets, by /api/v2/assets")
    max_files_mb: float = Field(
        8192.0, gt=0, description="what a key may keep of uploads, assets, saved files and workflows together"
    )
    max_files_in_all_mb: float | None = Field(
        None, gt=0, description="the same of all keys together; default: what the disk has, but for keep_free_mb"
    )
    keep_free_mb: float = Field(512.0, ge=0, description="free space of a disk that uploads and saved files leave")
    editor_assets: bool = Field(
        False, description="serve uploads and outputs to the editor's asset panels, by /api/assets"
    )
    max_pixels: int = Field(128 * 1024 * 1024, gt=0, description="largest picture that is decoded")
    decode_mb: float = Field(1024.0, gt=0, description="memory that all pictures being decoded may take together")
    decode_s: float = Field(10.0, gt=0, le=3600, description="computing that decoding one picture may take")
    max_nodes: int = Field(20_000, gt=0, description="largest graph that is accepted")
    previews: bool = Field(True, description="show pictures while sampling")
    bare_previews: bool = Field(
        False, description="previews also for clients that read no metadata; some of those take each for a result"
    )
    in_process: bool = Field(False, description="run nodes in the HTTP process: for debugging")
    slots: int = Field(4, ge=1, le=64, description="jobs under way at once on a worker; their samplers take turns")
    batch_evaluations: int = Field(
        1, ge=1, le=64, description="jobs whose samplers share a forward; above 1 the last bits may differ"
    )
    cache: str = Field("disk=0", description="cached results: memory=4GiB,disk=20GiB or off; default: memory alone")
    precision: str = Field(
        "auto",
        pattern=r"^((text|model|vae)=)?(auto|fp32|bf16|fp16|fp8)(,(text|model|vae)=(auto|fp32|bf16|fp16|fp8))*$",
        description="auto, fp32, bf16, fp16 or fp8 for models; or text=, model= and vae= with commas between",
    )
    memory: str = Field(
        "auto",
        pattern=r"^(auto|resident|stream|[0-9.]+ ?[kmgtKMGT]?i?[bB]?)$",
        description="how weights are kept: auto, resident, stream, or how much of a device they may take, such as 12GB",
    )
    compile: str = Field(
        "auto",
        pattern=r"^(auto|on|off)$",
        description="torch.compile for a diffusion model's blocks: auto (on CUDA where a model stays), on or off",
    )
    devices: str = Field(
        "auto",
        pattern=rf"^(auto|{DEVICE}(,{DEVICE})*)$",
        description="auto (the best there is), or names such as cuda:0,cuda:1: a worker for each; "
        "cuda:0+cuda:1 is one worker, each card making one half of guidance",
    )
    workers: str = Field(
        "here",
        pattern=r"^(here|ray:local|ray://[^/\s]+:[0-9]+)$",
        description="where jobs run: here (a process for each device), ray://HOST:10001 (on the machines of a Ray "
        "cluster), or ray:local (a cluster of this machine alone); needs the extra `cluster`",
    )
    shared_queue: bool = Field(
        False, description="other servers work on this database too, and on one queue; needs PostgreSQL"
    )
    machine_home: Path | None = Field(
        None, description="folder that holds models/ on every machine of the cluster; default: the path of home"
    )
    gpus_per_worker: float = Field(
        1.0, ge=0, le=64, description="GPUs a worker on a cluster takes; 0.5 lets two of them share one"
    )
    machine_labels: tuple[str, ...] = Field(
        (), description="labels, NAME=VALUE, of the cluster's machines that are used; default: all of them"
    )
    lease_s: float = Field(60.0, ge=1, description="a machine silent for so long has its jobs given to others")
    grow_to: int = Field(0, ge=0, description="workers that may be asked of the cluster's autoscaler; 0 asks for none")
    idle_s: float = Field(300.0, gt=0, description="a worker idle for so long gives its machine back, where it grows")
    private_webhooks: bool = Field(False, description="let webhooks go to addresses of private networks")
    step_deadline_s: float = Field(900.0, gt=0, description="a worker silent for so long during a job is restarted")
    max_connections: int = Field(
        1000, ge=8, description="connections at once; fewer where the limit of open files is lower"
    )
    max_queued: int = Field(10_000, gt=0, description="jobs that may wait, all owners together; more are refused")
    max_queued_per_owner: int | None = Field(
        None,
        gt=0,
        description="jobs of one key that may wait; default: a quarter of max_queued",
    )
    keep_days: float = Field(30.0, gt=0, description="how long ended jobs are in the history")
    keep_jobs: int = Field(10_000, ge=0, description="how many ended jobs are kept at most, the newest")
    artifacts: str | None = Field(
        None, description="folder or fsspec URL that gets a copy of every output file before its job ends"
    )
    keep_artifacts_days: float | None = Field(None, gt=0, description="how long those copies stay; default: for ever")
    stop_deadline_s: float = Field(30.0, ge=0, description="how long a stop waits for the running job")
    traces: str | None = Field(
        None,
        pattern=r"^https?://[!-~]+$",
        description="OTLP/HTTP collector that gets a trace of every job, such as http://127.0.0.1:4318; extra `otel`",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="form of the log on stderr; auto: text in a terminal, JSON elsewhere"
    )
    access_log: bool = Field(False, description="log a line for every request")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line logged")
    open: bool = Field(False, description="open the editor in a browser")

    @field_validator("cors_origin")
    @classmethod
    def _is_origin(cls, value: str | None) -> str | None:
        if value not in (None, "*") and not str(value).startswith(("http://", "https://")):
            raise ValueError("must be * or start with http:// or https://")
        return value

    @field_validator("cache")
    @classmethod
    def _is_budget(cls, value: str) -> str:
        try:
            CacheSettings.parse(value)
        except BadValue as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def max_upload_bytes(self) -> int:
        """The largest request body in bytes."""
        return int(self.max_upload_mb * 1024 * 1024)


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine; names other than `localhost` do not count."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def load_settings(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """The settings from all three sources; every wrong one is named with the place it came from."""
    given: dict[str, Any] = {}
    origin: dict[str, str] = {}
    sources = (
        (_from_file(file), str(file)),
        (_from_environment(environment), "environment"),
        ({name: value for name, value in flags.items() if value is not None}, "flag"),
    )
    for values, place in sources:
        given |= values
        origin |= dict.fromkeys(values, place)
    try:
        return Settings(**given)
    except ValidationError as error:
        raise _problem(error, origin) from None


def as_toml(settings: Settings) -> str:
    """The settings as the file that would make them, each with its meaning; what is unset is commented out."""
    lines = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        shown = without_password(value) if name in ADDRESSES and isinstance(value, str) else value
        lines += [f"# {field.description}", f"# {name} =" if value is None else f"{name} = {_toml(shown)}"]
    return "\n".join(lines) + "\n"


class OptionOf(NamedTuple):
    """A setting as an option of the command line."""

    name: str
    flag: str
    kind: str
    help: str
    is_list: bool
    is_switch: bool


def options() -> list[OptionOf]:
    """Every setting as an option `--x`, a switch as `--x/--no-x`; of a list, the option may come several times."""
    found = []
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        word = str(extra.get("flag", name)).replace("_", "-")
        is_list, is_switch = _is_list(field), field.annotation is bool
        flag = f"--{word}" if not is_switch or word.startswith("no-") else f"--{word}/--no-{word}"
        note = "" if is_switch or field.default in (None, ()) else f" (default: {field.default})"
        shown = f"{field.description}{note}"
        found.append(OptionOf(name, flag, _kind(field), shown[0].upper() + shown[1:], is_list, is_switch))
    return found


def as_markdown() -> str:
    """The table of settings that docs/service.md shows."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{_toml(field.default)}`"
        rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _is_list(field: FieldInfo) -> bool:
    return str(field.annotation).startswith("tuple")


def _kind(field: FieldInfo) -> str:
    """The word for a value in the help."""
    words = {"int": "INTEGER", "float": "NUMBER", "Path": "PATH"}
    return next((word for kind, word in words.items() if kind in str(field.annotation)), "TEXT")


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise MissingFile(file, error.strerror or "cannot be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadValue(str(file), str(error), "a TOML file") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Variables of our prefix that name a field; lists are separated as PATH is."""
    found: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        text = environment.get(PREFIX + name.upper())
        if text is not None:
            found[name] = [part for part in text.split(":") if part] if _is_list(field) else text
    return found


def misspelt(environment: Mapping[str, str]) -> list[str]:
    """Variables of our prefix that name no setting and look like one; others may be somebody else's affair."""
    names = {name.removeprefix(PREFIX).lower(): name for name in environment if name.startswith(PREFIX)}
    return [f"{names[name]}{meant}" for name in names if (meant := _meant(name))]


def _meant(name: str) -> str:
    return "" if name in Settings.model_fields else suggestion(name, Settings.model_fields)


def _problem(error: ValidationError, origin: Mapping[str, str]) -> EngineError:
    messages = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        place = f"setting {name!r} ({origin.get(name, 'default')})"
        if problem["type"] == "extra_forbidden":
            messages.append(f"{place}: there is no such setting{suggestion(name, Settings.model_fields)}")
        else:
            messages.append(f"{place}: {problem['input']!r}: {problem['msg']}")
    return BadSettings("; ".join(messages))


class BadSettings(EngineError, ValueError):
    """The settings contradict what is allowed; the message names each one and where it was given."""

    code = "bad_settings"


def _toml(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)
