"""Language and theme of this browser: two cookies, nothing else."""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import RedirectResponse

from interface.http.auth.login import safe_next
from interface.http.pages.pen import LANGUAGES
from interface.http.pages.render import LANGUAGE_COOKIE, THEME_COOKIE, THEMES
from interface.http.rights import Right
from interface.http.routes import Routes

_YEAR_S = 365 * 86_400

routes = Routes(in_schema=False)


@routes.post("/preferences", right=Right.OPEN)
def prefer(
    request: Request, language: Annotated[str, Form(max_length=8)] = "", theme: Annotated[str, Form(max_length=8)] = "",
    back: Annotated[str, Form(max_length=500)] = "/",
) -> RedirectResponse:
    """Keep what was chosen and go back."""
    response = RedirectResponse(safe_next(back), status_code=303)
    for name, value, known in ((LANGUAGE_COOKIE, language, LANGUAGES), (THEME_COOKIE, theme, THEMES)):
        if value in known:
            response.set_cookie(name, value, max_age=_YEAR_S, httponly=True, samesite="lax",
                                secure=request.url.scheme == "https", path="/")
    return response
