"""Audits: that serving computes what training did, looks at no later bar, and needs no bar more than it says."""

from serve_app.audit.histories import Histories, histories_of
from serve_app.audit.lookahead import Leak, LookaheadReport, audit_lookahead
from serve_app.audit.parity import Mismatch, ParityReport, audit_parity
from serve_app.audit.warmup import FeatureMemory, WarmupReport, audit_warmup

__all__ = [
    "FeatureMemory",
    "Histories",
    "Leak",
    "LookaheadReport",
    "Mismatch",
    "ParityReport",
    "WarmupReport",
    "audit_lookahead",
    "audit_parity",
    "audit_warmup",
    "histories_of",
]
