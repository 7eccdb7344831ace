"""Evidence: what the journal and the ledger say of a candidate beside production.

Both scored the same bars, one of them in the shadow: `paired`, which decides. Each answered symbols of its own:
`split`, which is weak. Whether any of it may be believed: `integrity`.
"""

from serve_app.evidence.experiments import Experiment, Experiments

__all__ = ["Experiment", "Experiments"]
