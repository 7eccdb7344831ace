"""Settings: strict, frozen, one section a stage. The same YAML file is a Ray Serve config; these are its `args`."""

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from serve_app.errors import ConfigError
from serve_app.types import Precision, Runtime, VariantName

SectionT = TypeVar("SectionT", bound="Section")
Share = Annotated[float, Field(ge=0, le=1)]
LARGEST_BATCH = 64
"""Rows that a router sends together and a model is warm for, unless a configuration says otherwise."""


class Section(BaseModel):
    """A part of a configuration file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Topology(StrEnum):
    """Where the stages run."""

    STAGED = "staged"
    """Every stage is a deployment of its own."""
    MODEL_REMOTE = "model_remote"
    """Preprocess and strategy inside the router, the models on their own (GPU) replicas."""
    FUSED = "fused"
    """All stages in the router's process."""


class Auth(StrEnum):
    """Who may ask."""

    NONE = "none"
    API_KEYS = "api_keys"
    """A key of the environment variable SIGNALGRAPH_API_KEYS as `Authorization: Bearer <key>`."""


class VariantConfig(Section):
    """One model, with limits of its own, so that a slow one cannot starve the other."""

    bundle: str
    """Folder of the bundle, relative to where the graph is started."""
    deadline_ms: float = Field(default=2000, gt=0)
    """A request that this variant has not answered by then is answered with an abstention."""
    max_queue_ms: float | None = Field(default=None, gt=0)
    """No request joins a router's queue whose first has waited for longer: it is refused with 503 and Retry-After, so
    that those that are taken are answered in time whatever the load. Half of `deadline_ms` if not given."""
    max_queued_rows: int = Field(default=1024, gt=0)
    """Rows that may wait in one router; more are refused with 503 and Retry-After."""


class Variants(Section):
    """The two models that serve at once."""

    production: VariantConfig
    candidate: VariantConfig | None = None

    def configured(self) -> dict[VariantName, VariantConfig]:
        """Return the variants that are there, production first."""
        both = {VariantName.PRODUCTION: self.production, VariantName.CANDIDATE: self.candidate}
        return {name: variant for name, variant in both.items() if variant is not None}


class AssignmentConfig(Section):
    """Which symbols the candidate answers."""

    candidate_share: Share = 0.0
    salt: str = "signalgraph"
    """Change it to draw other symbols; the same salt gives the same symbols for ever."""
    pins: dict[str, VariantName] = Field(default_factory=dict)
    """Symbols that go to a variant whatever the share."""

    @property
    def asked(self) -> frozenset[VariantName]:
        """Variants that answer any symbol, by the share or by a pin."""
        shares = {VariantName.PRODUCTION: 1 - self.candidate_share, VariantName.CANDIDATE: self.candidate_share}
        return frozenset({*(name for name, share in shares.items() if share > 0), *self.pins.values()})

    @property
    def asks_candidate(self) -> bool:
        """Whether the candidate answers any symbol."""
        return VariantName.CANDIDATE in self.asked


class BatchingConfig(Section):
    """How a router gathers requests, per bundle."""

    max_batch_size: int = Field(default=LARGEST_BATCH, gt=0)
    max_in_flight: int = Field(default=1, gt=0)
    """Batches that may be downstream at once. The second and later ones leave only when they are full: they are for
    stages with several replicas; with one replica of each, one was best on every machine measured."""
    max_wait_ms: float = Field(default=0, ge=0)
    """How long a batch that is not full waits for company although nothing is downstream; 0 was best on CPUs."""


class RouterTuning(Section):
    """The `user_config` of the router: what may change while it serves, without a restart."""

    batching: BatchingConfig


class RouterConfig(Section):
    """The ingress: who may ask, how much, and how requests are spread and gathered."""

    auth: Auth = Auth.NONE
    max_body_bytes: int = Field(default=8 * 2**20, gt=0)
    body_timeout_s: float = Field(default=10, gt=0)
    """How long a body may take to arrive; behind HAProxy, one of more than 64 KiB (`deployments/backend.sed`)."""
    max_bars: int = Field(default=10_000, gt=0)
    """Bars, or rows of features, in one request."""
    max_batch_requests: int = Field(default=1000, gt=0)
    """Requests in one call of /v1/signals:batch."""
    assignment: AssignmentConfig = AssignmentConfig()
    batching: BatchingConfig = BatchingConfig()


class ModelConfig(Section):
    """How a model runs."""

    threads: int = Field(default=1, gt=0)
    """Of one forward pass."""
    runtime: Runtime | None = None
    """None: the one that the bundle was exported for, which is the fastest that passed its gate."""
    precision: Precision | None = None
    """None: the bundle's, or FP32 when `runtime` is given."""
    warm_up_rows: int = Field(default=LARGEST_BATCH, gt=0)
    """Batches of 1, 2, 4, … up to this are computed before the model takes requests: what libraries do at the first of
    a size (plans, memory, kernels) is done by then. As large as the largest batch of a router."""


class AlertName(StrEnum):
    """What may be wrong."""

    ROLLING_ACCURACY = "rolling_accuracy"
    PREDICTION_SHIFT = "prediction_shift"
    INFERENCE_LATENCY = "inference_latency"
    MEMORY = "memory"
    ERROR_RATE = "error_rate"
    ABSTENTION_RATE = "abstention_rate"
    BAR_AGE = "bar_age"
    LOSS_INCREASE = "loss_increase"
    FEATURE_DRIFT = "feature_drift"


class Rule(Section):
    """One limit. It is breached by what is beyond it, not by what equals it."""

    limit: float
    window: int = Field(default=1, gt=0)
    """How many of the latest are looked at; fewer say nothing."""


RULES: Mapping[AlertName, Rule] = {
    AlertName.ROLLING_ACCURACY: Rule(limit=0.55, window=100),
    AlertName.PREDICTION_SHIFT: Rule(limit=0.1, window=1000),
    AlertName.INFERENCE_LATENCY: Rule(limit=100, window=100),
    AlertName.MEMORY: Rule(limit=0.8),
    AlertName.ERROR_RATE: Rule(limit=0.05, window=100),
    AlertName.ABSTENTION_RATE: Rule(limit=0.05, window=100),
    AlertName.BAR_AGE: Rule(limit=7_200, window=100),
}
"""Unless a configuration says otherwise."""


class AlertsConfig(Section):
    """When somebody is alarmed, and who. A rule that is null alarms nobody; what one does not name is as in RULES."""

    rolling_accuracy: Rule | None = RULES[AlertName.ROLLING_ACCURACY]
    """Share of predictions on the right side of 0.5, of the latest `window` whose outcome is known: below the limit."""
    prediction_shift: Rule | None = RULES[AlertName.PREDICTION_SHIFT]
    """Difference of the mean prediction of the latest `window` and the `window` before: above the limit."""
    inference_latency: Rule | None = RULES[AlertName.INFERENCE_LATENCY]
    """95th percentile of the latency in ms, of the latest `window` answers: above the limit."""
    memory: Rule | None = RULES[AlertName.MEMORY]
    """Share of the memory of a node, or of a GPU in it, in use: above the limit."""
    error_rate: Rule | None = RULES[AlertName.ERROR_RATE]
    """Share of the latest `window` requests that the server failed: above the limit."""
    abstention_rate: Rule | None = RULES[AlertName.ABSTENTION_RATE]
    """Share of the latest `window` decisions that were abstentions: above the limit."""
    bar_age: Rule | None = None
    """Median time in seconds from the last bar to its decision, of the latest `window`: above the limit. Off unless it
    is named: what is old depends on the bars, and a replay is of old ones."""
    loss_increase: bool = True
    """Whether a change for the worse of the Brier loss alarms, by a sequential test (`serve_app.monitor.outcomes`)."""
    feature_drift: bool = True
    """Whether a feature that is unlike training in a block of predictions alarms; see `serve_app.monitor.drift`."""
    pending_s: float = Field(default=0, ge=0)
    """How long something must be wrong before anybody is alarmed."""
    resolve_after_s: float = Field(default=60, ge=0)
    """How long all must be well again before it is called so: an alert at its limit does not flap."""
    webhook: str | None = Field(default=None, pattern="^https?://")
    """Where each alert is posted, as it fires and as it is resolved, signed with $SIGNALGRAPH_WEBHOOK_SECRET."""
    roll_back: tuple[AlertName, ...] = (
        AlertName.ROLLING_ACCURACY,
        AlertName.INFERENCE_LATENCY,
        AlertName.MEMORY,
        AlertName.ERROR_RATE,
        AlertName.ABSTENTION_RATE,
    )
    """Alerts that end a guarded promotion, if they are of its variant or of the whole graph."""

    @field_validator(*RULES, mode="before")
    @classmethod
    def _completed(cls, given: Any, info: ValidationInfo) -> Any:
        return {**RULES[AlertName(str(info.field_name))].model_dump(), **given} if isinstance(given, dict) else given

    def rules(self) -> dict[AlertName, Rule]:
        """Return those that are not null."""
        every = {name: getattr(self, name) for name in RULES}
        return {name: rule for name, rule in every.items() if rule is not None}

    def has(self, name: AlertName) -> bool:
        """Whether something alarms, be it by a rule or by a test of its own."""
        return bool(getattr(self, name))


class DecisionLogConfig(Section):
    """Where each router writes a line for each decision. Off unless it is named."""

    folder: str = ".signalgraph/log"
    """On a disk of each node, relative to where the graph is started; each router has a file of its own there."""
    share: Share = 1.0
    """Of the decisions; errors are all written."""
    max_bytes: int = Field(default=100 * 2**20, gt=0)
    """A file that would get larger is turned over."""
    files: int = Field(default=5, gt=0)
    """Files of the past that are kept."""


class MonitorConfig(Section):
    """What the monitor keeps, and when it alarms."""

    window: int = Field(default=10_000, gt=0)
    """Latest answers per variant, over which latency percentiles are taken."""
    alerts: AlertsConfig = AlertsConfig()
    log: DecisionLogConfig | None = None
    push_interval_ms: float = Field(default=500, gt=0)
    max_buffered: int = Field(default=50_000, gt=0)
    """Observations a router holds back while the monitor is away; older ones are dropped and counted."""


class JournalConfig(Section):
    """Where releases and decisions are kept."""

    url: str
    """Of a database, for SQLAlchemy: `sqlite:///<file>`, relative to where the graph is started, or
    `postgresql+psycopg://<user>@<host>/<database>`."""
    follow_ms: float = Field(default=500, gt=0)
    """How often each router asks whether there is a new release."""
    spool: str = ".signalgraph/spool"
    """Folder, on a disk of each node: what the routers decided until it is in the database."""
    ship_ms: float = Field(default=250, gt=0)
    """How often each router moves what it decided into the database."""


class AppConfig(Section):
    """The `args` of the application that answers HTTP (`deployments.graph:build_app`)."""

    topology: Topology = Topology.STAGED
    variants: Variants
    router: RouterConfig = RouterConfig()
    model: ModelConfig = ModelConfig()
    monitor: MonitorConfig = MonitorConfig()
    journal: JournalConfig | None = None
    """None: what this file says is in force for ever."""

    @model_validator(mode="after")
    def _candidate_is_there_when_used(self) -> "AppConfig":
        if self.router.assignment.asks_candidate and self.variants.candidate is None:
            raise ValueError("router.assignment sends symbols to the candidate, but variants.candidate is not set")
        return self

    @model_validator(mode="after")
    def _a_queue_takes_a_whole_batch_call(self) -> "AppConfig":
        for name, variant in self.variants.configured().items():
            if variant.max_queued_rows < self.router.max_batch_requests:
                raise ValueError(
                    f"variants.{name}.max_queued_rows is {variant.max_queued_rows}, less than the"
                    f" {self.router.max_batch_requests} of router.max_batch_requests: an idle router would refuse part"
                    " of one call"
                )
        return self

    @model_validator(mode="after")
    def _the_monitor_keeps_what_its_rules_look_at(self) -> "AppConfig":
        for name, rule in self.monitor.alerts.rules().items():
            if self.monitor.window < 2 * rule.window:
                raise ValueError(
                    f"monitor.window is {self.monitor.window}, less than twice the {rule.window} of"
                    f" monitor.alerts.{name}.window"
                )
        return self

    @model_validator(mode="after")
    def _model_settings_have_an_effect(self) -> "AppConfig":
        if self.topology is not Topology.FUSED and self.model != ModelConfig():
            raise ValueError("model is for the fused topology; here it belongs to the model's own application")
        return self


class ModelAppConfig(Section):
    """The `args` of an application that serves one variant's model (`deployments.graph:build_model`)."""

    variant: VariantName
    bundle: str
    model: ModelConfig = ModelConfig()


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _plain(error: ErrorDetails) -> str:
    return "unknown key" if error["type"] == "extra_forbidden" else error["msg"]


def parse_section(section: type[SectionT], document: dict[str, Any], where: str) -> SectionT:
    """Validate part of a configuration file. Raises ConfigError that names every wrong key."""
    try:
        return section.model_validate(document)
    except ValidationError as error:
        lines = [f"{'.'.join([where, *map(str, e['loc'])])}: {_plain(e)}" for e in error.errors()]
        raise ConfigError("; ".join(lines)) from error
