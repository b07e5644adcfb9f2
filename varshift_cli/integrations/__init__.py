"""varshift where a team works: in tests, in training loops, in notebooks.

``pytest_plugin`` is loaded by pytest itself, ``lightning`` needs Lightning; neither is imported
here, and nothing here imports torch before it is used.
"""

from varshift_cli.integrations.assertion import VarianceShiftError, assert_variance_shift
from varshift_cli.integrations.monitor import ShiftMonitor, ShiftPoint

__all__ = ["ShiftMonitor", "ShiftPoint", "VarianceShiftError", "assert_variance_shift"]
