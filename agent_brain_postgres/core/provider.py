"""What the running core knows about its embedding provider."""

from __future__ import annotations

import sys
from typing import Any


def embedding_dimensions() -> int | None:
    """Give the dimensions of the running core's provider, or None when it only guesses.

    The core's Ollama provider says 768 for every model it does not know; a vector that was
    written, or the column that holds it, knows better.
    """
    config = sys.modules.get("agent_brain_server.config.provider_config")
    if config is None:
        return None
    try:
        from agent_brain_server.providers.factory import ProviderRegistry

        settings = config.load_provider_settings().embedding
        if _is_guess(settings):
            return None
        return int(ProviderRegistry.get_embedding_provider(settings).get_dimensions())
    except Exception:  # no API key, unknown provider: the core reports it where it matters
        return None


def _is_guess(settings: Any) -> bool:
    if str(getattr(settings.provider, "value", settings.provider)).lower() != "ollama":
        return False
    from agent_brain_server.providers.embedding.ollama import OLLAMA_MODEL_DIMENSIONS

    return settings.model not in OLLAMA_MODEL_DIMENSIONS
