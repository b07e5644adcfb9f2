"""Settings of the current directory."""

from varshift_cli.config.file import COMMAND_LINE_ONLY, OWN_FILE, SHARED_FILE, Config, load_config

__all__ = ["COMMAND_LINE_ONLY", "OWN_FILE", "SHARED_FILE", "Config", "load_config"]
