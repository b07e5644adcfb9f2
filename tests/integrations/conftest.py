from tests.cli.conftest import pipeline

__all__ = ["pipeline"]
