"""A client of the MAAS API as small as it can be: OAuth 1.0 PLAINTEXT, forms in, JSON out."""

import http.client
import json
import secrets
import socket
import time
import urllib.parse

from .netns import socket_in


class ApiError(Exception):
    """An answer that is not 2xx."""

    def __init__(self, method, path, status, body):
        super().__init__(f"{method} {path}: {status} {body[:400].strip()}")
        self.status, self.body = status, body


class _Connection(http.client.HTTPConnection):
    def __init__(self, namespace, host, port, timeout):
        super().__init__(host, port, timeout=timeout)
        self.namespace = namespace

    def connect(self):
        self.sock = socket_in(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect((self.host, self.port))


class Api:
    """The API at `url` (http://HOST:PORT/MAAS), called from inside a namespace.

    `key` is what `apikey` prints (CONSUMER:TOKEN:SECRET); None calls anonymously.
    """

    def __init__(self, url, key=None, namespace=None, timeout=30.0):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port, self.prefix = parts.hostname, parts.port or 80, parts.path.rstrip("/")
        self.key, self.namespace, self.timeout = key, namespace, timeout

    def get(self, path, op=None, **parameters):
        """Read; parameters go into the query."""
        return self.call("GET", path, op, parameters)

    def post(self, path, op=None, **parameters):
        """Create, or an operation; parameters go into the body. A list is repeated."""
        return self.call("POST", path, op, parameters)

    def put(self, path, **parameters):
        """Update."""
        return self.call("PUT", path, None, parameters)

    def delete(self, path, **parameters):
        """Delete."""
        return self.call("DELETE", path, None, parameters)

    def call(self, method, path, op=None, parameters=None):
        """One call. `path` is below /MAAS/api/2.0/, or below /MAAS when it starts with a slash.
        Returns what the JSON says, or the text."""
        target = self.prefix + (path if path.startswith("/") else f"/api/2.0/{path}")
        pairs = _pairs(parameters or {})
        query = [("op", op)] if op else []
        body, headers = None, {"Accept": "application/json"}
        if method in ("GET", "DELETE"):
            query += pairs
        else:
            body = urllib.parse.urlencode(pairs)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if query:
            target += "?" + urllib.parse.urlencode(query)
        if self.key:
            headers["Authorization"] = self._authorization()
        answer, text = self._exchange(method, target, body, headers)
        if not 200 <= answer.status < 300:
            raise ApiError(method, target, answer.status, text)
        if "json" in answer.headers.get("Content-Type", ""):
            return json.loads(text)
        return text

    def raw(self, method, target, headers):
        """One request as it is, without credentials; returns status and text."""
        answer, text = self._exchange(method, target, None, headers)
        return answer.status, text

    def machine(self, system_id):
        """One machine."""
        return self.get(f"machines/{system_id}/")

    def machine_with_mac(self, mac):
        """The machine that has a NIC with this address, or None."""
        return next((m for m in self.get("machines/", mac_address=mac)), None)

    def boots(self, system_id):
        """The boot timeline of a machine."""
        return self.get(f"/api/v1/machines/{system_id}/boots")

    def _exchange(self, method, target, body, headers):
        connection = _Connection(self.namespace, self.host, self.port, self.timeout)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def _authorization(self):
        consumer, token, secret = self.key.strip().split(":")
        fields = {
            "oauth_nonce": secrets.token_hex(16),
            "oauth_timestamp": str(int(time.time())),
            "oauth_version": "1.0",
            "oauth_signature_method": "PLAINTEXT",
            "oauth_consumer_key": consumer,
            "oauth_token": token,
            "oauth_signature": urllib.parse.quote(f"&{secret}", safe=""),
        }
        return "OAuth " + ", ".join(f'{name}="{value}"' for name, value in fields.items())


def _pairs(parameters):
    pairs = []
    for name, value in parameters.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None:
                pairs.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return pairs
