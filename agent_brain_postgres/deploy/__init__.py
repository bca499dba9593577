"""Files for a running store: compose template, port, environment file, config.yaml.

What `agent-brain-postgres init` does, in pieces that a set-up wizard can call:

    from agent_brain_postgres import deploy

    plan = deploy.prepare(deploy.state_directory())    # reserves a port, writes nothing else
    print(plan.diff())                                 # secrets are masked
    plan.apply()                                       # or plan.abandon()
    print(plan.next_commands())

Nothing here starts or stops a container. Every failure is a `StorageError`.
"""

from agent_brain_postgres.deploy.env_file import merged as merged_environment
from agent_brain_postgres.deploy.ignore_file import with_entry as ignored
from agent_brain_postgres.deploy.locks import locked
from agent_brain_postgres.deploy.modes import Mode
from agent_brain_postgres.deploy.plan import Change, Plan
from agent_brain_postgres.deploy.ports import is_free, release, reserve, reserved
from agent_brain_postgres.deploy.project import prepare
from agent_brain_postgres.deploy.state import compose_project, project_root, state_directory
from agent_brain_postgres.deploy.template import (
    TEMPLATE_NAME,
    copy_template,
    template,
    template_text,
)
from agent_brain_postgres.deploy.yaml_file import merged as merged_yaml

__all__ = [
    "TEMPLATE_NAME",
    "Change",
    "Mode",
    "Plan",
    "compose_project",
    "copy_template",
    "ignored",
    "is_free",
    "locked",
    "merged_environment",
    "merged_yaml",
    "prepare",
    "project_root",
    "release",
    "reserve",
    "reserved",
    "state_directory",
    "template",
    "template_text",
]
