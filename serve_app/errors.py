"""Every error a caller can meet, with its HTTP status on the class.

* ServeAppError                    500 internal
  + MalformedRequest               400 malformed
  + Unauthorized                   401 unauthorized
  + ControlOff                     403 control_off: nobody may change releases here
  + NotFound                       404 not_found
  + BodyTimeout                    408 body_timeout
  + PayloadTooLarge                413 too_large
  + UnusableRequest                422 unusable
    - UnknownSymbol                unknown_symbol
    - MissingColumns               missing_columns
    - UnknownColumns               unknown_columns
    - WrongType                    wrong_type
    - TooFewBars                   too_few_bars
    - TooManyMissing               too_many_missing
    - NonFinite                    non_finite
    - UnsortedTimestamps           unsorted_timestamps
    - DuplicateTimestamps          duplicate_timestamps
    - InvalidBar                   invalid_bar
    - InvalidPosition              invalid_position
    - FeaturesNeeded               features_needed
  + Overloaded                     503 overloaded (Retry-After)
  + RouterFull                     429 router_full (Retry-After): refused before it was read
  + TooManyViewers                 429 too_many_viewers (Retry-After): of the dashboard
  + StageFailed                    503 model_unavailable: a stage could not answer a batch; becomes an abstention
    - StageUnavailable             nobody is there to answer, whatever the batch
    - OutOfMemory                  the device has no memory for a batch of that size
  + MonitorUnavailable             503 monitor_unavailable (Retry-After); signals are not affected
  + ConfigError                    config: a configuration file is wrong
  + BundleError                    a bundle cannot be used
    - BundleNotFound
    - BundleCorrupt                a file is missing, added or changed
    - DigestMismatch               a stage was asked for a bundle that it does not hold
    - ParityError                  serving does not reproduce the golden cases
    - GateFailed                   an export decides otherwise than what it was exported from
  + RegistryError                  registry: MLflow does not answer, or does not hold what was asked for
  + RepositoryError                repository: it cannot do what was asked; production is what it was
    - HistoryAltered               the history is not as it was written
  + ReleaseRefused                 409 release_refused: the release in force stays
  + JournalUnavailable             503 journal_unavailable (Retry-After)
  + SpoolUnavailable               503 spool_unavailable (Retry-After): a decision could not be kept, so it is not given
  + UnknownDecision                404 unknown_decision
  + BundleNotLoaded                409 bundle_not_loaded: a bundle that is nowhere to be found
  + EvidenceRefused                409 evidence_refused: two bundles that cannot be compared by what happened
  + UnknownExperiment              404 unknown_experiment
  + OutcomeConflict                409 outcome_conflict: another outcome of this decision was reported before
  + IdempotencyConflict            409 idempotency_conflict: the key was used for another request

Errors cross process boundaries: the message is in `args` and the rest in `__dict__`, so they survive pickling.
"""

from typing import Any, ClassVar


class ServeAppError(Exception):
    """Base of the tree: a message that says what is wrong and what to do, and machine-readable detail."""

    status_code: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.detail = detail


class MalformedRequest(ServeAppError):
    """The body is not JSON, or not of the documented structure."""

    status_code = 400
    code = "malformed"


class Unauthorized(ServeAppError):
    """No valid API key came with the request."""

    status_code = 401
    code = "unauthorized"


class ControlOff(ServeAppError):
    """No control key was set when the graph was started."""

    status_code = 403
    code = "control_off"


class NotFound(ServeAppError):
    """No such thing."""

    status_code = 404
    code = "not_found"


class BodyTimeout(ServeAppError):
    """The body did not arrive in time."""

    status_code = 408
    code = "body_timeout"


class PayloadTooLarge(ServeAppError):
    """The body, the history or the batch is larger than the server takes."""

    status_code = 413
    code = "too_large"


class UnusableRequest(ServeAppError):
    """Well formed, but no signal can be computed from it."""

    status_code = 422
    code = "unusable"


class UnknownSymbol(UnusableRequest):
    """The model never saw this symbol; it has no embedding of its own."""

    code = "unknown_symbol"


class MissingColumns(UnusableRequest):
    """A required column is absent."""

    code = "missing_columns"


class UnknownColumns(UnusableRequest):
    """A column that the bundle does not know, most likely misspelt."""

    code = "unknown_columns"


class WrongType(UnusableRequest):
    """A value is of the wrong type."""

    code = "wrong_type"


class TooFewBars(UnusableRequest):
    """The history is shorter than the features' memory."""

    code = "too_few_bars"


class TooManyMissing(UnusableRequest):
    """More of the window is missing than the bundle's NaN policy allows, or it starts with a gap."""

    code = "too_many_missing"


class NonFinite(UnusableRequest):
    """A number is missing, NaN or infinite where a finite one is needed."""

    code = "non_finite"


class UnsortedTimestamps(UnusableRequest):
    """Bars are not in ascending order of time."""

    code = "unsorted_timestamps"


class DuplicateTimestamps(UnusableRequest):
    """Two bars carry one timestamp."""

    code = "duplicate_timestamps"


class InvalidBar(UnusableRequest):
    """Price ≤ 0, negative volume, high < low, or open or close outside [low, high]."""

    code = "invalid_bar"


class InvalidPosition(UnusableRequest):
    """The position's status or holding time cannot be used."""

    code = "invalid_position"


class FeaturesNeeded(UnusableRequest):
    """The model was trained on features that are not computed here: bars say nothing to it."""

    code = "features_needed"


class Overloaded(ServeAppError):
    """The queue of this variant is full; try again after `retry_after_s`."""

    status_code = 503
    code = "overloaded"


class RouterFull(ServeAppError):
    """A router has as many requests as it takes; try again after `retry_after_s`."""

    status_code = 429
    code = "router_full"


class TooManyViewers(ServeAppError):
    """Enough look at this router already; none of them may take room from those who trade."""

    status_code = 429
    code = "too_many_viewers"


class StageFailed(ServeAppError):
    """A stage of the graph could not answer. Never a probability: the router turns it into an abstention."""

    status_code = 503
    code = "model_unavailable"


class StageUnavailable(StageFailed):
    """No replica of a stage answers, so there is no point in trying the batch in parts."""


class OutOfMemory(StageFailed):
    """The device that computes has no memory for a batch of that size."""


class MonitorUnavailable(ServeAppError):
    """The monitor does not answer; signals are not affected."""

    status_code = 503
    code = "monitor_unavailable"


class ConfigError(ServeAppError):
    """A configuration file is wrong; the message names the key."""

    code = "config"


class BundleError(ServeAppError):
    """A bundle cannot be used."""

    code = "bundle"


class BundleNotFound(BundleError):
    """There is no bundle at this path."""


class BundleCorrupt(BundleError):
    """A file of the bundle is missing, added or changed; the message names it."""


class DigestMismatch(BundleError):
    """A batch names a bundle that this stage does not hold."""


class ParityError(BundleError):
    """Serving does not reproduce a golden case; the message names the first stage and feature that differ."""


class GateFailed(BundleError):
    """An export decides otherwise than what it was exported from; the message names the worst cases."""


class RegistryError(ServeAppError):
    """MLflow does not answer, does not hold what was asked for, or holds something else than was published."""

    code = "registry"


class RepositoryError(ServeAppError):
    """The model repository cannot do what was asked; production is what it was."""

    code = "repository"


class HistoryAltered(RepositoryError):
    """The history is not as it was written; the message names the line."""


class ReleaseRefused(ServeAppError):
    """What was asked of a release cannot be; what is in force stays."""

    status_code = 409
    code = "release_refused"


class JournalUnavailable(ServeAppError):
    """The journal's database does not answer."""

    status_code = 503
    code = "journal_unavailable"


class SpoolUnavailable(ServeAppError):
    """What was decided cannot be written down, and is therefore not answered."""

    status_code = 503
    code = "spool_unavailable"


class UnknownDecision(ServeAppError):
    """The journal has no decision of that id."""

    status_code = 404
    code = "unknown_decision"


class BundleNotLoaded(ServeAppError):
    """A bundle is not among those that the graph was built on, nor among the versions beside them."""

    status_code = 409
    code = "bundle_not_loaded"


class EvidenceRefused(ServeAppError):
    """Two bundles cannot be compared by what happened."""

    status_code = 409
    code = "evidence_refused"


class UnknownExperiment(ServeAppError):
    """The ledger has no experiment of that name."""

    status_code = 404
    code = "unknown_experiment"


class OutcomeConflict(ServeAppError):
    """Another outcome of this decision was reported before, and stays."""

    status_code = 409
    code = "outcome_conflict"


class IdempotencyConflict(ServeAppError):
    """An idempotency key that was used for another request."""

    status_code = 409
    code = "idempotency_conflict"


def _all(kind: type[ServeAppError]) -> list[type[ServeAppError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in _all(child))]


SERVER_CODES = frozenset(kind.code for kind in _all(ServeAppError) if kind.status_code >= 500)
"""Codes of errors that are not the client's fault."""
