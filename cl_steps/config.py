"""params.yaml and run.yaml as frozen, typed, validated blocks; read once, passed on.

`params.yaml` holds a line's knobs (see its comments); `run.yaml` says what is special about one run and may
override single knobs for that run alone. An unknown key or a wrong type is refused with one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from cl_steps.documents import YAML_BYTES, Unreadable, check_plain, read_yaml
from cl_steps.errors import UsageError

FORMAT = 1
"""Of a workspace, as its params.yaml says; `retain migrate` brings an older one up to it."""
PILLOW_MAX_PIXELS = 178_956_970
"""Pillow itself opens nothing larger (twice its `Image.MAX_IMAGE_PIXELS`)."""
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,60}")
AUTO = ("auto",)
KEY = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*")
"""A parameter's dotted name."""


def _whole(value: Any) -> Any:
    """`1e9` and `500.0` are whole numbers, too, as people (and forms in a browser) write them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _listed(value: Any) -> Any:
    """`auto` alone is one module's name; JSON has lists for tuples."""
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str) else value


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    wrong = next((key for key in values if not KEY.fullmatch(key)), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r:.80} is no parameter's name")
    check_plain(values)
    return values


def _moment(value: str) -> str:
    if value and datetime.fromisoformat(value).tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return value


Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Rate = Annotated[float, Field(gt=0, le=10)]
Amount = Annotated[float, Field(ge=0, le=1e6)]
Whole = BeforeValidator(_whole)
Count = Annotated[int, Field(ge=1, le=10**9), Whole]
Bytes = Annotated[int, Field(ge=1, le=2**50), Whole]
Side = Annotated[int, Field(ge=1, le=65_536), Whole]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
Words = Annotated[str, StringConstraints(max_length=10_000)]
Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})?$")]
"""What Git calls a commit or a tree; empty where there is none yet."""
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
RunId = Annotated[str, StringConstraints(pattern=f"^{RUN_ID.pattern}$")]
MethodName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
Knob = Annotated[float, Field(ge=-1e9, le=1e9)] | bool | Text | tuple[Any, ...] | Mapping[str, Any] | None
"""What a method's knob may be before the method looks at it."""
METHOD_FILES = (Path(__file__).parent / "learning" / "methods").glob("*.py")
Bits = Literal["int8", "fp8", "nf4"]
Base = Literal["full"] | Bits
Colour = Annotated[str, StringConstraints(pattern=r"^(white|black|grey|#[0-9a-fA-F]{6})$")]
ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,200}$")]


class Block(BaseModel):
    """A part of the configuration: frozen, typed strictly, no unknown keys, no number that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Ingest(Block):
    """What may come in, and how it is divided.

    Of a landing one run looks at no more than `max_files` files, `max_landing_bytes` of bytes and `max_depth` folders
    below each other; of its metadata (apart) at `max_metadata_bytes` and `max_metadata_lines`, all files together. What
    is beyond stays for another night, and so do pictures of one source beyond `max_new_per_source`. Where `licences` or
    `consents` are given, no others are taken. `max_quarantine_bytes` of what is set aside are kept a night.
    """

    min_new_assets: Count = 16
    max_attempts: Count = 3
    settle_seconds: Annotated[int, Field(ge=0, le=86_400), Whole] = 60
    max_files: Count = 2_000_000
    max_landing_bytes: Bytes = 256 * 2**30
    max_depth: Annotated[int, Field(ge=1, le=1000), Whole] = 32
    max_metadata_bytes: Bytes = 2**29
    max_metadata_lines: Count = 2_000_000
    max_quarantine_bytes: Annotated[int, Field(ge=0, le=2**50), Whole] = 2**30
    max_file_bytes: Bytes = 64 * 2**20
    max_archive_bytes: Bytes = 2**30
    max_pixels: Annotated[int, Field(ge=1, le=PILLOW_MAX_PIXELS), Whole] = 64_000_000
    slice_by_folder: bool = False
    min_side: Side = 16
    max_aspect_ratio: Annotated[float, Field(ge=1, le=65_536)] = 4.0
    background: Colour = "white"
    max_caption_characters: Count = 2000
    licences: Annotated[tuple[Text, ...], Field(min_length=1), BeforeValidator(_listed)] | None = None
    consents: Annotated[tuple[Text, ...], Field(min_length=1), BeforeValidator(_listed)] | None = None
    max_new_per_source: Count | None = None
    near_duplicate_rmse: Annotated[float, Field(gt=0, le=255)] = 3.0
    probe_share: Share = 0.1
    evaluation_share: Share = 0.3
    sealed_share: Share = 0.1

    @model_validator(mode="after")
    def _some_to_learn(self) -> Ingest:
        if self.probe_share + self.evaluation_share >= 1:
            raise ValueError("probe_share and evaluation_share must leave something to learn: make their sum less")
        return self


class Drift(Block):
    """How different is different; levels are the chances of a false verdict, all slices and looks together.

    An AUC is how well a classifier tells new items from known ones: 0.5 not at all, 1 always. A known slice has drifted
    when its p-value is within `level` and its AUC at least `min_auc`; pictures and captions that fit worse than known
    ones within `alarm_level` and by at least `alarm_auc` are alarming. A slice never seen before needs `min_new_slice`
    items to be learnt.
    """

    level: Share = 0.005
    alarm_level: Share = 0.0001
    min_auc: Share = 0.6
    alarm_auc: Share = 0.75
    max_quarantine_share: Share = 0.5
    min_new_slice: Count = 16
    reference_per_slice: Annotated[int, Field(ge=20, le=10**9), Whole] = 500


class Lora(Block):
    """The shape of the adapter; it is fixed when a line begins. Of rank `full` it is a change of every weight."""

    rank: Count | Literal["full"] = 16
    alpha: Count = 64
    target_modules: Annotated[tuple[ModuleName, ...], Field(min_length=1), BeforeValidator(_listed)] = AUTO

    @property
    def is_auto(self) -> bool:
        """Whether the base is to say which layers: its attention's projections."""
        return self.target_modules == AUTO


PRESETS: Mapping[str, tuple[str, ...]] = {
    "replay_distill": ("replay", "distillation"),
    "replay": ("replay",),
    "finetune": (),
    "lwf": ("lwf",),
    "ewc": ("ewc",),
    "ewc_distill": ("replay", "distillation", "ewc"),
    "gem": ("gem",),
    "agem": ("agem",),
}
"""Sets of methods by the names that `update.method` may give them; a method by itself has its own name."""
METHOD_NAMES = tuple(sorted({file.stem for file in METHOD_FILES} - {"__init__", "catalogue", "method"}))


def methods_of(method: str | tuple[str, ...]) -> tuple[str, ...]:
    """The methods that `update.method` stands for, each once; raises ValueError for a name that is none."""
    names = (method,) if isinstance(method, str) else method
    for name in names:
        if name not in PRESETS and name not in METHOD_NAMES:
            known = ", ".join(sorted({*PRESETS, *METHOD_NAMES}))
            raise ValueError(f"there is no method {name:.40}: name one or several of {known}")
    return tuple(dict.fromkeys(part for name in names for part in PRESETS.get(name, (name,))))


class Update(Block):
    """How a candidate learns.

    `method` is a preset, a method, or several of them; `methods` has their knobs by method, which `retain methods`
    lists. These are looked at where the method is (`learning.methods`), which needs torch.
    """

    method: Annotated[str, Field(max_length=100)] | Annotated[tuple[MethodName, ...], Field(max_length=20)] = (
        "replay_distill"
    )
    methods: Mapping[MethodName, Mapping[MethodName, Knob]] = {}
    steps: Count = 1000
    batch_size: Count = 4
    learning_rate: Rate = 5e-5
    base_learning_rate: Rate = 1e-4
    warmup_share: Share = 0.05
    clip_norm: Positive = 1.0
    ema_decay: Share = 0.99
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    replay_capacity: Count = 2000
    checkpoint_every: Count = 100  # steps between two looks of the guard, each saved as a checkpoint
    probe_budget: Positive = 0.05  # how far the loss on old slices' probes may rise, as a share, before it backs off
    lora: Lora = Lora()

    @model_validator(mode="after")
    def _below_the_base(self) -> Update:
        if self.learning_rate >= self.base_learning_rate:
            raise ValueError("learning_rate must be below base_learning_rate, the rate at which the base was trained")
        return self

    @model_validator(mode="before")
    @classmethod
    def _as_before(cls, values: Any) -> Any:
        """`distillation_weight` had a place of its own once."""
        if isinstance(values, dict) and "distillation_weight" in values:
            methods = dict(values.get("methods") or {})
            methods["distillation"] = {"weight": values["distillation_weight"], **methods.get("distillation", {})}
            rest = {key: value for key, value in values.items() if key != "distillation_weight"}
            return {**rest, "methods": methods}
        return values

    @model_validator(mode="after")
    def _known_methods(self) -> Update:
        names = methods_of(self.method)
        if unknown := sorted(self.methods.keys() - set(METHOD_NAMES)):
            raise ValueError(f"methods has {unknown[0]:.40}, which is none: name one of {', '.join(METHOD_NAMES)}")
        if self.batch_size < 2 and "replay" in names:
            raise ValueError("batch_size must be at least 2, since half of each step is replayed")
        return self


class Evaluate(Block):
    """How much is measured; `looks` are the numbers of prompts per slice at which a decision may fall."""

    looks: Annotated[tuple[Count, ...], Field(min_length=1)] = (48, 96)
    loss_draws: Count = 4
    images_per_slice: Count = 200
    batch_size: Count = 16

    @model_validator(mode="after")
    def _rising(self) -> Evaluate:
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError("looks must rise, for example [48, 96]")
        return self


class Serving(Block):
    """How the line is sampled where it is used; the gate samples in the same way. None is what the pipeline does."""

    num_inference_steps: Count | None = None
    guidance_scale: Amount | None = None
    negative_prompt: Text = ""
    height: Side | None = None
    width: Side | None = None


class Margins(Block):
    """The largest harm that counts as none, in each metric's own unit.

    `loss` and `diversity` are shares of the champion's; `fidelity` is 1 where samples fit their captions as well as
    the held-out images do and 0 where they fit them no better than any other caption; `kid` is in units of KID.
    """

    loss: Positive = 0.05
    fidelity: Positive = 0.08
    kid: Positive = 0.3
    diversity: Positive = 0.1


class Gate(Block):
    """What a candidate must show; `nightly` against the champion, `total` against each slice's anchor.

    `level` is the chance of a wrong answer on one batch, over all its looks and attempts. The user's own checks get
    `checks_seconds` and `checks_bytes` of memory.
    """

    level: Share = 0.05
    nightly: Margins = Margins()
    total: Margins = Margins(loss=0.15, fidelity=0.15, kid=0.6, diversity=0.2)
    min_gain: Amount = 0.05
    approval: bool = False
    checks_seconds: Annotated[int, Field(ge=1, le=7 * 86_400), Whole] = 120
    checks_bytes: Bytes = 4 * 2**30

    @model_validator(mode="after")
    def _total_not_below_nightly(self) -> Gate:
        for metric, margin in self.nightly:
            if getattr(self.total, metric) < margin:
                raise ValueError(f"total.{metric} must not be below nightly.{metric}: raise it to {margin} or more")
        return self


class Compute(Block):
    """Where steps run, and how the base lies there (`models.placing`); precision `auto` is bfloat16 where it exists."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    base: Base = "full"
    checkpointing: bool = False
    offload: bool = False
    shard: bool = False
    compile: bool = False
    threads: Annotated[int, Field(ge=0, le=4096), Whole] = 0

    @model_validator(mode="after")
    def _fit_together(self) -> Compute:
        away = next((name for name in ("offload", "shard") if getattr(self, name)), None)
        other = "base" if self.base != "full" else "compile"
        if away and (self.base != "full" or self.compile):
            raise ValueError(f"{away} is for whole weights that are not compiled: leave out one of {away} and {other}")
        return self


class Params(Block):
    """Everything that a line's owner may set."""

    format: Annotated[int, Field(ge=1)] = FORMAT
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")] = "my-line"
    seed: Annotated[int, Field(ge=0, lt=2**32), Whole] = 0
    landing: Text | None = None
    ingest: Ingest = Ingest()
    drift: Drift = Drift()
    update: Update = Update()
    evaluate: Evaluate = Evaluate()
    serving: Serving = Serving()
    gate: Gate = Gate()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _whole_weights_to_change(self) -> Params:
        how = self.compute
        if self.update.lora.rank == "full" and (how.base != "full" or how.offload or how.shard or how.compile):
            others = "compute.base, offload, shard and compile"
            raise ValueError(f"update.lora.rank full needs all weights as they are: leave out {others}")
        return self


PER_RUN = ("update", "compute")
"""Blocks of the parameters that a single run may set otherwise: how it learns, and on what.

The others say where the line is, or how a candidate is judged. Only main's params.yaml sets them.
"""


class RunSpec(Block):
    """What is special about one run; on main it holds the defaults of a run by hand (`dvc repro`)."""

    id: RunId = "local"
    trigger: Literal["schedule", "manual", "asset"] = "manual"
    by: Words = ""
    reason: Words = ""
    batch: RunId | None = None
    rebase: Md5 | None = None  # what the store calls the base that this run puts under the line
    force: bool = False
    base: Commit = ""
    state: Commit = ""
    started: Annotated[str, AfterValidator(_moment)] = ""
    set: Annotated[dict[str, Any], AfterValidator(_plain)] = {}


BlockType = TypeVar("BlockType", bound=Block)


def load_params(root: Path, run: RunSpec | None = None) -> Params:
    """`root/params.yaml` with the run's own overrides on top.

    Raises:
        UsageError: no such file, no YAML, another format, an unknown key, a wrong type or value.
    """
    values = _mapping(root / "params.yaml")
    check_format(values)
    for key, value in (run.set if run else {}).items():
        _put(values, key, value)
    return validate_block(Params, values, "params.yaml")


def check_format(values: dict[str, Any]) -> None:
    """Raise UsageError where a params.yaml says that its workspace is of another format than this code's."""
    found = values.get("format", FORMAT)
    if isinstance(found, int) and found > FORMAT:
        raise UsageError(f"the workspace has format {found}, and this Retain knows up to {FORMAT}: install a newer one")
    if isinstance(found, int) and 0 < found < FORMAT:
        raise UsageError(f"the workspace has format {found}, and this Retain needs {FORMAT}: `retain migrate DIR`")


def load_run(root: Path) -> RunSpec:
    """`root/run.yaml`; raises UsageError as `load_params` does."""
    return validate_block(RunSpec, _mapping(root / "run.yaml"), "run.yaml")


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """`["update.steps=10"]` as `{"update.steps": 10}`; values are YAML; raises UsageError for anything else."""
    result = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not KEY.fullmatch(key):
            raise UsageError(f"--set takes key=value, for example update.steps=500, and not {pair!r}")
        result[key] = parse_yaml(value.encode(errors="surrogateescape"), f"--set {key}")
    return result


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UsageError(f"{dotted!r} cannot be set: {parent!r} is not a block of params.yaml")
    values[last] = value


def parse_mapping(content: bytes, name: str) -> dict[str, Any]:
    """The keys and values of a YAML file that is called `name`, unchecked; raises UsageError."""
    values = parse_yaml(content, name)
    if not isinstance(values, dict):
        raise UsageError(f"{name} must hold keys and values, and it holds {type(values).__name__}")
    return values


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"there is no {path.name} in {path.parent}: is it a workspace? `retain init DIR` makes one")
    try:
        with path.open("rb") as stream:
            content = stream.read(YAML_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return parse_mapping(content, path.name)


def parse_yaml(content: bytes, name: str) -> Any:
    """A YAML document that is called `name`; raises UsageError, one sentence with the line."""
    try:
        return read_yaml(content)
    except Unreadable as error:
        raise UsageError(f"{name} is not valid YAML ({error}): mend it and try again") from error


def validate_block(block: type[BlockType], values: dict[str, Any], name: str) -> BlockType:
    """`values` of the file `name` as a block; raises UsageError, one sentence about the first thing that is wrong."""
    try:
        return block.model_validate(_tuples(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or name
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{name} has an unknown key {key!r:.80}: remove it or look up its name") from error
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"{name} has a wrong value for {key!r:.80}: {message:.200}, got {first['input']!r:.80}"
        ) from error


def _tuples(value: Any) -> Any:
    """YAML lists as tuples, since blocks are frozen; whole numbers are taken for floats by pydantic itself."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
