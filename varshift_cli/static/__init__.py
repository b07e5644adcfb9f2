"""What a checkpoint file alone tells: its BatchNorm buffers, and those of two files compared.

Needs numpy and, for safetensors files, no torch. No model is built and none of its code is run.
"""

from varshift_cli.static.lint import lint_checkpoint

__all__ = ["lint_checkpoint"]
