"""Serve: a snapshot over HTTP on this machine, by FastAPI and uvicorn."""

import os
import secrets
from pathlib import Path
from typing import Any

from accord.engine.remote.http import LOCAL
from accord.errors import BadInput
from accord.models.loading import load_policy
from accord.models.places import describe, heads_of
from accord.models.preflight import preflight
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.stages.serve.config import Serve
from accord.stages.serve.scores import ScoreRequest, ServedScorer
from accord.stages.serve.talk import ChatRequest, Talker
from accord.training import distributed


def run(config: Serve) -> None:
    """Answer until Ctrl-C."""
    try:
        import uvicorn
    except ImportError:
        raise BadInput("serving needs FastAPI and uvicorn; install them with: pip install 'accord[serve]'") from None
    server = uvicorn.Config(make_app(config), host=config.host, port=config.port, log_level="warning", ws="none")
    socket = server.bind_socket()
    open_to = "" if config.host in LOCAL or config.key_variable else ", open to everybody who reaches this machine"
    print(f"{config.snapshot}: http://{config.host}:{socket.getsockname()[1]}{open_to}; Ctrl-C ends it", flush=True)
    uvicorn.Server(server).run(sockets=[socket])


def make_app(config: Serve) -> Any:
    """The application: `/v1/chat/completions` of a policy, `/scores` of a scorer, and what both have."""
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, StreamingResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    key = os.environ.get(config.key_variable, "")
    if config.key_variable and not key:
        raise BadInput(f"--key_variable {config.key_variable}: no such environment variable, or it is empty")

    def admit(request: Request) -> None:
        told = request.headers.get("Authorization", "")
        if key and not secrets.compare_digest(told.encode(), f"Bearer {key}".encode()):
            raise HTTPException(401, "a key is asked for: Authorization: Bearer KEY")

    preflight({"model": config.snapshot})
    described = describe(config.snapshot)
    name = Path(config.snapshot).name if Path(config.snapshot).exists() else config.snapshot
    device = distributed.start(0).device
    renderer = load_renderer(config.snapshot)
    app = FastAPI(title=f"accord serve {name}", dependencies=[Depends(admit)])
    if config.host in LOCAL:
        # a web page must not reach it under a name of its own (DNS rebinding)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])

    @app.exception_handler(BadInput)
    def refuse(request: Request, error: BadInput) -> JSONResponse:
        return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, 400)

    @app.exception_handler(RequestValidationError)
    def explain(request: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(f"{'.'.join(str(p) for p in e['loc'][1:])}: {e['msg']}" for e in error.errors())
        return JSONResponse({"error": {"message": said, "type": "invalid_request_error"}}, 400)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "accord"}]}

    if described["role"] == "policy":
        model = load_policy(config.snapshot, trainable=False).to(device)
        talker = Talker(name, model, renderer, max_new_tokens=config.max_new_tokens)

        @app.post("/v1/chat/completions", response_model=None)
        def chat(asked: ChatRequest) -> dict[str, Any] | StreamingResponse:
            answer = talker.complete(asked)
            return answer if isinstance(answer, dict) else StreamingResponse(answer, media_type="text/event-stream")

    else:
        heads = heads_of(described)
        head = "" if len(heads) == 1 or "groups" in described else heads[0]
        scorer = Scorer(config.snapshot, role=described["role"], device=device, head=head)
        served = ServedScorer(config.snapshot, scorer, renderer, micro_tokens=config.micro_tokens)

        @app.get("/scores")
        def about() -> dict[str, Any]:
            return served.about()

        @app.post("/scores")
        def scores(asked: ScoreRequest) -> dict[str, Any]:
            return served.score(asked)

    return app
