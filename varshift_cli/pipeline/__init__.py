"""The whole order of things: the only room that knows every other one below the command line.

``scanning``, ``fixing`` and ``inspecting`` are the commands, ``live`` the same on a model in
memory, ``assembly`` makes a report of a measurement. Models are changed through ``remedies``
alone, files opened and written through ``loading`` alone; nothing is printed.
"""

from varshift_cli.pipeline.drawing import draw_batches
from varshift_cli.pipeline.fixing import fix_checkpoint
from varshift_cli.pipeline.growing import scan_until
from varshift_cli.pipeline.inspecting import inspect_checkpoint
from varshift_cli.pipeline.live import correct, recalibrate, scan
from varshift_cli.pipeline.places import written_files
from varshift_cli.pipeline.scanning import scan_checkpoint
from varshift_cli.remedies import move_dropout, swap_dropout

__all__ = [
    "correct",
    "draw_batches",
    "fix_checkpoint",
    "inspect_checkpoint",
    "move_dropout",
    "recalibrate",
    "scan",
    "scan_checkpoint",
    "scan_until",
    "swap_dropout",
    "written_files",
]
