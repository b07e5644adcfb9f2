"""From figures to words: what the buffers describe, each layer's cause, and the findings.

It reads what was measured. No model is changed and no file opened here; a rule that has to know
more asks for further passes (``Observations.trials``).
"""

from varshift_cli.diagnosis.buffers import describe_buffers
from varshift_cli.diagnosis.findings import find_causes
from varshift_cli.diagnosis.naming import name_cause
from varshift_cli.diagnosis.observations import Observations, TrainingData

__all__ = ["Observations", "TrainingData", "describe_buffers", "find_causes", "name_cause"]
