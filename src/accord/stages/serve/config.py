"""Knobs of serving a snapshot."""

from pydantic import Field

from accord.config import Config


class Serve(Config):
    """Answer over HTTP: chat as OpenAI's clients ask for it, or the scores of a preference or cost model."""

    snapshot: str = Field(description="snapshot to serve: a directory, OWNER/NAME[@REVISION], or a GGUF file")
    host: str = Field("127.0.0.1", description="address to listen on; any other than this machine's is open to all")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one and says it")
    key_variable: str = Field("", description="environment variable with the key that clients must send; none asked")
    max_new_tokens: int = Field(512, gt=0, description="longest reply in tokens where a request names none")
    micro_tokens: int = Field(16384, gt=0, description="tokens in memory at once; changes no result")
