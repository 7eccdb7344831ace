"""What is wrong with a bundle, or with the data it is asked about: one line a check, with a verdict and what to do."""

from serve_app.doctor.diagnosis import Check, Diagnosis, FeatureSummary, Verdict
from serve_app.doctor.examine import examine

__all__ = ["Check", "Diagnosis", "FeatureSummary", "Verdict", "examine"]
