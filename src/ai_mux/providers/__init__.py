"""The providers that ai-mux knows. A further one is one file and one entry here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ai_mux.providers import chatgpt, claude
from ai_mux.providers.base import Provider

PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType(
    {provider.name: provider for provider in (claude.PROVIDER, chatgpt.PROVIDER)}
)
