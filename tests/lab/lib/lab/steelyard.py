"""The product as a process in a namespace, and its command line."""

import os
import pathlib
import signal
import subprocess

from .api import Api, ApiError
from .netns import Net
from .process import spawn, stop
from .steps import NotYet, wait_for

REPOSITORY = pathlib.Path(__file__).resolve().parents[4]
# The product answers to these names as well; a link is how a command line gets them.
NAMES = ("maas", "maas-region", "maas-rack")


def program():
    """The binary under test: $STEELYARD, or the debug build."""
    path = pathlib.Path(os.environ.get("STEELYARD") or REPOSITORY / "target" / "debug" / "steelyard")
    if not path.exists():
        raise RuntimeError(f"{path} does not exist: run cargo build, or set STEELYARD")
    return path.resolve()


class Steelyard:
    """One process of the product, by default the all-in-one of the rack namespace."""

    def __init__(self, lab, name="steelyard", namespace=None, listen=None, arguments=None, environment=None):
        """`arguments` replaces `up --data-dir DIR --listen ADDRESS`."""
        self.lab, self.name = lab, name
        self.namespace = namespace or lab.net.rack
        self.listen = listen or f"{lab.net.gateway}:5240"
        self.url = f"http://{self.listen}/MAAS"
        self.data = lab.directory / f"{name}-data"
        self.log_path = lab.directory / f"{name}.log"
        self.arguments = arguments or ["up", "--data-dir", self.data, "--listen", self.listen]
        self.bin = lab.directory / "bin"
        self.bin.mkdir(exist_ok=True)
        for alias in NAMES:
            link = self.bin / alias
            if not link.exists():
                link.symlink_to(program())
        # The client keeps its profiles in the home directory; it must not be the person's own.
        self.environment = {**os.environ, "HOME": str(lab.directory), "RUST_BACKTRACE": "1", **(environment or {})}
        self._child = None

    def start(self):
        """Start the process; returns at once."""
        with open(self.log_path, "ab") as log:
            self._child = spawn(Net.command(self.namespace, [program(), *self.arguments]),
                                stdout=log, stderr=log, env=self.environment, cwd=self.lab.directory)
        return self

    def wait_ready(self, limit=60):
        """Wait until the API answers."""
        api = Api(self.url, namespace=self.namespace, timeout=5)

        def check():
            if self._child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self._child.returncode}:\n{self.log_tail()}")
            try:
                return api.get("version/")["version"]
            except (OSError, ApiError) as e:
                raise NotYet(str(e)) from None

        return wait_for(f"{self.name} to answer at {self.url}", limit, check, interval=0.1)

    def stop(self):
        """End it as a service manager would."""
        if self._child is not None:
            stop(self._child, grace=15)
            self._child = None

    def kill(self):
        """End it with SIGKILL, as a crash would."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()
            self._child = None

    def steelyard(self, *arguments):
        """Run a command of the product on this process's data directory; returns its standard output."""
        return self._run([program(), *arguments, "--data-dir", self.data])

    def maas(self, *arguments):
        """Run the product under the name `maas`; returns its standard output."""
        return self._run([self.bin / "maas", *arguments])

    def command(self, name, *arguments):
        """Run the product under one of its names; returns its standard output."""
        return self._run([self.bin / name, *arguments])

    def log_tail(self, lines=30):
        """The end of the process's log."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _run(self, argv):
        done = subprocess.run([str(a) for a in Net.command(self.namespace, argv)], env=self.environment, cwd=self.lab.directory,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
        if done.returncode != 0:
            shown = [pathlib.Path(argv[0]).name, *(str(a) for a in argv[1:3])]  # no passwords, no keys
            raise RuntimeError(f"{' '.join(shown)} ...: exit status {done.returncode}\n{done.stderr.strip()}\n{done.stdout.strip()[-400:]}")
        return done.stdout
