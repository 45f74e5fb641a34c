"""What machines boot: built once by tests/lab/images/build, served as a SimpleStreams mirror."""

import functools
import http.server
import os
import pathlib
import socket
import subprocess
import sys
import threading

from .netns import socket_in

BUILD = pathlib.Path(__file__).resolve().parents[2] / "images" / "build"
MIRROR_PORT = 8099


def images():
    """The directory the images are in, built now if they are not; see images/build for what is in it."""
    there = _build("--print")
    # Another tree's images may be in the making for minutes; what is complete need not wait for them.
    return there if (there / "complete").exists() else _build()


def _build(*options):
    done = subprocess.run([BUILD, *options], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError("the images could not be built; see above")
    return pathlib.Path(done.stdout.strip())


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        # A client that goes away in the middle is its own affair.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Mirror:
    """An HTTP server of one directory inside a namespace, at its `address`."""

    def __init__(self, namespace, address, directory, port=MIRROR_PORT):
        self.url = f"http://{address}:{port}"
        server = _Server(
            (address, port), functools.partial(_Handler, directory=os.fspath(directory)), bind_and_activate=False)
        server.socket.close()
        server.socket = socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
        server.server_bind()
        server.server_activate()
        self._server = server
        threading.Thread(target=server.serve_forever, name="mirror", daemon=True).start()

    @property
    def index(self):
        """The URL to give a boot source: the index by name, because the mirror is not signed."""
        return f"{self.url}/streams/v1/index.json"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
