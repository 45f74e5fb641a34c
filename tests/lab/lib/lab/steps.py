"""Steps of a scenario: one line each with its seconds, and waiting with a limit and a reason."""

import contextlib
import os
import sys
import time

# Limits are for a host that has little else to do. On one that is busy all of them may be some times longer.
PATIENCE = float(os.environ.get("STEELYARD_LAB_PATIENCE", "1"))


class TimedOut(Exception):
    """A wait reached its limit. Says what was waited for and what was seen last."""


class NotYet(Exception):
    """Raised by a check that is not satisfied; its text is what was seen, for the message of a time-out."""


def wait_for(what, limit, check, interval=0.5):
    """Call `check` until it returns something true or `limit` seconds (times PATIENCE) have passed; returns what it returned.

    `check` says what it sees by raising NotYet; any other exception ends the wait at once.
    """
    limit *= PATIENCE
    deadline = time.monotonic() + limit
    seen = "nothing"
    while True:
        try:
            result = check()
            if result:
                return result
        except NotYet as e:
            seen = str(e)
        if time.monotonic() >= deadline:
            raise TimedOut(f"waited {limit:g} s for {what}; last seen: {seen}")
        time.sleep(interval)


class Steps:
    """Prints `  12.3 s  name` when a step ends, and keeps the list for a report."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.started = time.monotonic()
        self.done = []
        self.current = None

    @contextlib.contextmanager
    def step(self, name):
        """One step. The line is printed when it ends; on failure it says so and the exception goes on."""
        start = time.monotonic()
        self.current = name
        try:
            yield
        except BaseException as e:
            self._line(start, f"{name}: FAILED {type(e).__name__}: {e}")
            raise
        self.current = None
        self.done.append((name, time.monotonic() - start))
        self._line(start, name)

    def note(self, text):
        """A line that is not a step."""
        print(f"            {text}", file=self.out, flush=True)

    def seconds(self):
        """Seconds since the scenario began."""
        return time.monotonic() - self.started

    def _line(self, start, text):
        print(f"{time.monotonic() - start:8.1f} s  {text}", file=self.out, flush=True)
