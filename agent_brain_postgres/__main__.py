"""Run the command line as `python -m agent_brain_postgres`."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main(prog_name="agent-brain-postgres")
