"""The page that shows an API, with script and style of our own: it works offline and tells no third party who reads."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse

_FILES = Path(str(files("fastapi_offline"))) / "static"
_PARTS = {
    "swagger_js_url": "swagger-ui-bundle.js",
    "swagger_css_url": "swagger-ui.css",
    "swagger_favicon_url": "favicon.png",
}


def show(app: FastAPI) -> None:
    """Give the app its page at `/docs`, under whatever prefix it is reached."""

    async def page(request: Request) -> Response:
        prefix = request.scope["root_path"]
        urls: dict[str, Any] = {argument: f"{prefix}/docs/{name}" for argument, name in _PARTS.items()}
        silent = {"validatorUrl": None}  # else it sends the address of the description to a validator elsewhere
        return get_swagger_ui_html(
            openapi_url=f"{prefix}/openapi.json", title=app.title, swagger_ui_parameters=silent, **urls
        )

    async def part(request: Request) -> Response:
        return FileResponse(_FILES / Path(request.url.path).name)

    app.add_route("/docs", page, include_in_schema=False)
    for name in _PARTS.values():
        app.add_route(f"/docs/{name}", part, include_in_schema=False)
