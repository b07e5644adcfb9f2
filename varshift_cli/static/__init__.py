"""What a checkpoint file alone tells: its BatchNorm buffers, and those of two files compared.

Needs numpy and, for safetensors files, no torch. No model is built and none of its code is run.
"""

from varshift_cli.static.compare import diff_checkpoints
from varshift_cli.static.lint import lint_checkpoint
from varshift_cli.static.reports import diff_reports

__all__ = ["diff_checkpoints", "diff_reports", "lint_checkpoint"]
