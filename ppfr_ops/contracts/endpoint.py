"""How a recogniser is asked over HTTP: the models of requests and replies, and their OpenAPI.

``schemas/fr-endpoint.v1.openapi.json`` is generated from this file. Anyone who serves a recogniser
in any language by that document can be asked by ``ppfr distill``.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from ppfr_ops.contracts import Document, untitled

NUMBER_HEADER = "X-Query-Number"
"""Number of the query in the account of anyone who asks: lets both sides compare line by line."""

LARGEST_REQUEST = 2 << 20
LARGEST_REPLY = 1 << 20
"""Bytes; what is larger is refused unread."""

_PICTURE = "PNG or JPEG of an aligned face, 112 x 112 RGB, base64"


class EndpointInfo(Document):
    """What an endpoint says of itself. Asking for it is no query."""

    version: Literal[1] = 1
    dimensions: int | None = Field(ge=1, description="of a template; null: scores only")
    answers: list[Literal["template", "score"]]
    queries: int = Field(ge=0, description="requests for templates and scores since it started")


class TemplateRequest(Document):
    picture: str = Field(description=_PICTURE)


class TemplateReply(Document):
    template: list[float] = Field(description="of any length but zero; compared by cosine")


class ScoreRequest(Document):
    a: str = Field(description=_PICTURE)
    b: str = Field(description=_PICTURE)


class ScoreReply(Document):
    score: float = Field(description="the greater, the more alike")


class Problem(Document):
    error: str = Field(description="one line that holds nothing of the picture")


_QUERIES: dict[str, tuple[type[BaseModel], type[BaseModel], str]] = {
    "/v1/template": (TemplateRequest, TemplateReply, "The template of a picture: one query."),
    "/v1/score": (ScoreRequest, ScoreReply, "The score of two pictures: one query."),
}
_PROBLEMS = {
    "400": "not of this form, or no picture of an aligned face",
    "401": "the token is missing or wrong",
    "404": "this endpoint does not answer that",
    "413": "too large",
    "429": "too many; Retry-After says for how many seconds to wait",
    "503": "not now",
}


def openapi() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    used = (EndpointInfo, TemplateRequest, TemplateReply, ScoreRequest, ScoreReply, Problem)
    paths: dict[str, Any] = {
        "/v1/info": {"get": {"summary": "No query.", "responses": {"200": _content(EndpointInfo)}}}
    }
    for path, (asked, told, summary) in _QUERIES.items():
        problems = {
            code: {**_content(Problem), "description": why} for code, why in _PROBLEMS.items()
        }
        paths[path] = {
            "post": {
                "summary": summary,
                "parameters": [
                    {
                        "name": NUMBER_HEADER,
                        "in": "header",
                        "required": False,
                        "schema": {"type": "integer"},
                        "description": "number of the query in the asker's account",
                    }
                ],
                "requestBody": {"required": True, "content": _content(asked)["content"]},
                "responses": {"200": _content(told), **problems},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "A face recogniser that can be asked", "version": "1"},
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {model.__name__: untitled(model.model_json_schema()) for model in used},
        },
    }


def _content(model: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {
        "description": (model.__doc__ or model.__name__).strip().split("\n")[0],
        "content": {"application/json": {"schema": reference}},
    }
