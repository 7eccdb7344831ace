"""The other end of the webhook."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serve_app.webhook import signature
from tests.waiting import free_port


class Receiver:
    """Takes what is posted, and looks whether it is signed with a secret."""

    def __init__(self, secret: str) -> None:
        self.events: list[dict[str, Any]] = []
        events = self.events

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sent = self.headers["webhook-id"], int(self.headers["webhook-timestamp"])
                genuine = self.headers["webhook-signature"] == signature(secret, *sent, body)
                events.append(json.loads(body) | {"genuine": genuine})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def heard(self, alert: str) -> list[str]:
        """What was told of an alert, oldest first."""
        return [one["data"]["state"] for one in self.events if one["data"]["alert"] == alert]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
