"""The web application: the page's files, the API, and what machines ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware

from hvq_edge import design
from hvq_edge.design.language import language_of, languages
from hvq_edge.design.pages import page_environment
from hvq_edge.explain import api as explain_api
from hvq_edge.stream.live_page import predict_api
from hvq_edge.stream.live_page.api import REFUSALS, Served, answer_refusal, common, router
from hvq_edge.stream.live_page.connections import PREDICT
from hvq_edge.stream.live_page.middleware import REVIEW, BodyLimit, Guard
from hvq_edge.stream.review import api as review_api

FILES = Path(__file__).with_name("page")
SHARED = Path(design.__file__).parent
PAGES = {PREDICT: "predict.html", "/login": "login.html"}


def make_app(served: Served) -> FastAPI:
    """Return the ASGI application."""
    app = FastAPI(
        title="hvq-edge live page" if served.view is not None else "hvq-edge serve",
        version=version("hvq-edge"),
        description="Reading is open on a loopback address without a token file, and needs "
        "the token elsewhere. Changes always need it, and so does whatever makes the machine work.",
        docs_url=None,  # FastAPI's own pages load scripts from other servers
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        middleware=[
            Middleware(Guard, access=served.access, cookie=served.cookie),
            Middleware(BodyLimit),
        ],
        exception_handlers=dict.fromkeys(REFUSALS, answer_refusal),
    )
    app.state.served = served
    routers = [common, predict_api.router]
    routers += [router] if served.view is not None else []
    routers += [review_api.router] if served.review is not None else []
    routers += [explain_api.router] if served.explainer is not None else []
    for one in routers:
        app.include_router(one)
    pages = {**PAGES, **({REVIEW: "review.html"} if served.review is not None else {})}
    start = pages[PREDICT] if served.judge is not None else pages.get(REVIEW, pages[PREDICT])
    pages["/"] = "index.html" if served.view is not None else start
    environments = {
        code: page_environment("hvq_edge.stream.live_page", language_of(code))
        for code in ([served.language] if served.language else languages())
    }
    for path, name in pages.items():
        html = {
            code: environment.get_template(f"pages/{name}").render()
            for code, environment in environments.items()
        }
        answer = _answering(html, served)
        app.add_api_route(path, answer, include_in_schema=False, response_class=HTMLResponse)
    for path in ("/favicon.ico", "/page/icon.svg", "/page/colours.css"):
        name = "icon.svg" if path == "/favicon.ico" else path.rpartition("/")[2]
        app.add_api_route(path, partial(_shared, name), include_in_schema=False)
    app.mount("/page", StaticFiles(directory=FILES))
    return app


def _answering(html: Mapping[str, str], served: Served) -> Callable[[Request], HTMLResponse]:
    """Return what answers with a page in the request's language."""

    def answer(request: Request) -> HTMLResponse:
        headers = {"cache-control": "no-cache", "vary": "accept-language"}
        return HTMLResponse(html[served.spoken(request).code], headers=headers)

    return answer


def _shared(name: str) -> FileResponse:
    return FileResponse(SHARED / name, headers={"cache-control": "no-cache"})
