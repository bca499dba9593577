"""What `enable` writes into site-packages, word for word."""

import sys


class AgentBrainPostgresFinder:
    """Offers the core the PostgreSQL backend of agent-brain-postgres; imports nothing before."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if not name.startswith("agent_brain_server.storage.postgres"):
            return None
        try:
            from agent_brain_postgres.core.finder import find_spec
        except ImportError:  # uninstalled since: the core's own backend takes over
            return None
        return find_spec(name)


if not any(type(f).__name__ == "AgentBrainPostgresFinder" for f in sys.meta_path):
    sys.meta_path.insert(0, AgentBrainPostgresFinder())
