"""What is wrong with a deployment, and the one command that mends each thing.

    report = await examine()      # changes nothing
    await repair(report)          # only what `report.repairs` lists
"""

from agent_brain_postgres.doctor.examination import CHECKS, Report, examine, repair
from agent_brain_postgres.doctor.finding import Finding, Fix, Status

__all__ = ["CHECKS", "Finding", "Fix", "Report", "Status", "examine", "repair"]
