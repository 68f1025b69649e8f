"""Azure OpenAI: OpenAI's wire, Microsoft's addresses and credential headers.

With `api_version = "v1"` (or none) the paths are /openai/v1/…, as OpenAI's own, and the body's model
names the deployment. With a dated version, a call that names a model goes to
/openai/deployments/NAME/…; files, batches and responses have no deployment in their path.
Source: Azure OpenAI REST API reference.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from gateway.backends.base.http import HttpBackend
from gateway.core.call import Call
from gateway.core.errors import CallerError
from gateway.core.route import Target
from gateway.settings.schema import BackendSettings

# Paths of the API that belong to a deployment.
_DEPLOYED: Final = frozenset(
    (
        "/chat/completions", "/completions", "/embeddings", "/audio/transcriptions", "/audio/translations",
        "/audio/speech", "/images/generations", "/images/edits",
    )
)  # fmt: skip


class AzureBackend(HttpBackend):
    """One resource. `target.model` is the deployment's name, else the model the caller named."""

    kind = "azure"

    def __init__(self, settings: BackendSettings) -> None:
        super().__init__(settings)
        self._root = self.prefix.removesuffix("/v1").removesuffix("/openai") + "/openai"
        version = settings.api_version
        self._dated = version not in ("", "v1", "preview", "latest") and not self.prefix.endswith("/v1")
        self._version = f"api-version={version}".encode() if version not in ("", "v1") else b""

    def place(self, path: str, query: bytes, model: str) -> bytes:
        """The operator's api-version stands, whatever the caller asks for."""
        if not self._dated:
            place = f"{self._root}/v1{path}"
        elif path in _DEPLOYED:
            place = f"{self._root}/deployments/{_segment(model)}{path}"
        else:
            place = self._root + path
        asked = [part for part in query.split(b"&") if part and not part.startswith(b"api-version=")]
        both = b"&".join([self._version, *asked] if self._version else asked)
        return place.encode("ascii") + (b"?" + both if both else b"")

    def credential(self, key: str) -> tuple[str, str]:
        """Azure takes its own header, or a bearer token (Entra ID)."""
        return ("api-key", key) if self.settings.credential == "api-key" else super().credential(key)

    def body(self, call: Call, target: Target) -> bytes:
        """Where the path names the deployment the body stays as it came."""
        return call.body if self._dated and call.path in _DEPLOYED else super().body(call, target)


def _segment(model: str) -> str:
    """A deployment's name as one segment of a path: it can't leave its place."""
    if model in ("", ".", ".."):
        raise CallerError(
            "'model' must name a deployment.", param="model", code="caller_model_not_found", status=404
        )
    return quote(model, safe="")
