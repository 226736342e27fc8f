"""Which requests come in: from where, to what, how large. A refusal is one plain sentence."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from gradio.route_utils import API_PREFIX
from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.uploads import MOST_SENT, SPARE
from demo.wording_train import DISK_FULL

# Gradio's routes that the page has no use for: they fetch any address, or write to the disk.
CLOSED = re.compile(r"/(file[=/]|proxy=|process_recording|deep_link|stream/)")
UPLOAD = f"{API_PREFIX}/upload"
MOST_ASKED = 6 * 10**6  # bytes of a question: a picture that is given back, in base64
MOST_UPLOADED = MOST_SENT + 10**6  # bytes of an upload: a file, and what is wrapped around it
LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))
# Names under which Gradio lets no foreign page add a header of its own to a request.
GUARDED = frozenset(("localhost", "127.0.0.1"))


class Doors:
    """ASGI middleware in front of Gradio's routes; a Space is open to every other site's page.

    CARTOON_HOSTS in the environment names the hosts of a proxy, or of pages that may ask.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer with 403, 404, 413, 415 or 507."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            _check_path(request)
            if not os.environ.get("SPACE_ID"):
                _check_name(request)
                _check_sender(request)
            if request.method == "POST":
                _check_kind(request)
                _check_room(request)
                await self._let_in(request, receive, send)
            else:
                await self.app(scope, receive, send)
        except HTTPException as refusal:
            await PlainTextResponse(refusal.detail, refusal.status_code)(scope, receive, send)

    async def _let_in(self, request: Request, receive: Receive, send: Send) -> None:
        """Count the body while it is read; raises HTTPException when it is too large."""
        most = MOST_UPLOADED if _is_upload(request) else MOST_ASKED
        too_large = HTTPException(413, f"More than {most // 10**6} MB is too much at once.")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_large
        left = most

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise too_large
            return message

        async def answer(message: Message) -> None:
            if left >= 0:  # what Gradio makes of that exception is of no interest
                await send(message)

        await self.app(request.scope, counted, answer)
        if left < 0:
            raise too_large


def _check_path(request: Request) -> None:
    if CLOSED.search(request.scope["path"]):
        raise HTTPException(404, "There is nothing here.")


def _check_name(request: Request) -> None:
    """Keep out a foreign name that was made to point at this machine, its page behind it."""
    # Gradio sets server_name once the server has started.
    at_home = getattr(request.app.get_blocks(), "server_name", None) in LOCAL
    name = _host(request.headers.get("host"))
    if at_home and name not in LOCAL | _names(request):
        name = name or "NAME"
        raise HTTPException(
            403, f"This page is not called {name}; start it with CARTOON_HOSTS={name} if it is."
        )


def _check_sender(request: Request) -> None:
    """Keep out what another site's page sends through the browser of somebody who visits it."""
    origin = request.headers.get("origin")
    if request.method != "POST" or origin is None:
        return
    name, sender = _host(request.headers.get("host")), _host(origin)
    own = {name} | _names(request)
    if name in GUARDED:  # or in front of it a proxy, on this machine
        own.add(_host(request.headers.get("x-forwarded-host", "").split(",")[0]))
    if sender not in own - {""}:
        raise HTTPException(
            403,
            "The page of another site may not do this; "
            f"start this one with CARTOON_HOSTS={sender or 'NAME'} if it may.",
        )


def _names(request: Request) -> set[str]:
    """What the page is called elsewhere: as whoever started it says, and by Gradio's tunnel."""
    said = os.environ.get("CARTOON_HOSTS", "").replace(",", " ").lower().split()
    return {*said, _host(request.app.get_blocks().share_url)} - {""}


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not _is_upload(request):
        raise HTTPException(415, "Only application/json is taken here.")


def _check_room(request: Request) -> None:
    if not _is_upload(request):
        return
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < SPARE + int(request.headers.get("content-length", 0)):
        raise HTTPException(507, DISK_FULL)


def _is_upload(request: Request) -> bool:
    return request.scope["path"].rstrip("/").endswith(UPLOAD)


def _host(address: str | None) -> str:
    """The host in an address or a header, without its port; "" where there is none."""
    address = (address or "").strip()
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""
