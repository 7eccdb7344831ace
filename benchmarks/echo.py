"""The ceilings of the platform: handlers that send a body back, on the ingress that the graph has."""

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

READY = b'{"ready": true}'
"""What a graph says to `signalgraph up`."""
_OPTIONS: dict[str, Any] = {"max_ongoing_requests": 2048, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0.4}}


class BareEcho:
    """As little as Ray Serve allows."""

    async def __call__(self, request: Request) -> Response:
        """Send the body back."""
        return Response(await request.body() or READY, media_type="application/json")


class FastAPIEcho:
    """The same behind FastAPI, as Ray Serve's documentation has it."""

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application that Ray Serve shall serve."""
        api = FastAPI()

        @api.post("/v1/signals")
        async def echo(request: Request) -> Response:
            return Response(await request.body(), media_type="application/json")

        @api.get("/v2/health/ready")
        async def ready() -> Response:
            return Response(READY, media_type="application/json")

        return api


def bare(_: dict[str, Any]) -> Application:
    """Build the bare echo."""
    return serve.deployment(name="echo", **_OPTIONS)(BareEcho).bind()


def fastapi(_: dict[str, Any]) -> Application:
    """Build the echo behind FastAPI."""
    ingress = serve.ingress()(FastAPIEcho)
    return serve.deployment(name="echo", **_OPTIONS)(ingress).bind()
