"""Settings of the current directory: ``varshift.toml``, or ``[tool.varshift]``.

Read and checked here, obeyed by the command line alone. No torch, and no file but these.
"""

from varshift_cli.config.file import COMMAND_LINE_ONLY, OWN_FILE, SHARED_FILE, Config, load_config

__all__ = ["COMMAND_LINE_ONLY", "OWN_FILE", "SHARED_FILE", "Config", "load_config"]
