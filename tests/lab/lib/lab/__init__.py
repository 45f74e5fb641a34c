"""The lab: real machines (emulated), real firmware, real BMC protocol, in network namespaces of its own.

A scenario is a short Python file that opens a `Lab`, defines machines and drives the product through its
API. Everything a lab makes (namespaces, processes, files) belongs to the `Lab` and is gone when its `with`
block ends, however it ends. Nothing is created in, or routed to, the host's own network.

Start reading at `Lab` in bench.py, then machine.py.
"""

from . import apart, capture, verdicts
from .api import Api, ApiError
from .bench import Lab
from .bmc import Bmc
from .images import Mirror, images
from .machine import Machine
from .netns import Net
from .operator import Operator
from .steelyard import Steelyard
from .steps import NotYet, Steps, TimedOut, wait_for

__all__ = [
    "Api", "ApiError", "Bmc", "Lab", "Machine", "Mirror", "Net", "NotYet", "Operator", "Steelyard", "Steps", "TimedOut", "apart", "capture",
    "images", "verdicts", "wait_for",
]
