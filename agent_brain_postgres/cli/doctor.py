"""`agent-brain-postgres doctor`: what is wrong, and what mends it."""

from __future__ import annotations

import asyncio
import json

import click

from agent_brain_postgres.doctor import Finding, Report, Status, examine, repair

_MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "failed": ("FAILED", "red"),
    "skipped": ("skipped", "bright_black"),
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--fix", is_flag=True, help="Make the repairs that are listed, and no others.")
@click.option("--verbose", "-v", is_flag=True, help="Show details of what is in order, too.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, fix: bool, verbose: bool) -> None:
    """Check the set-up step by step: settings, network, server, tables, speed.

    Says for each check what was seen and what would mend it. Changes nothing without --fix.
    Exit code 1 when a check failed.
    """
    report = asyncio.run(examine())
    if fix and report.repairs:
        for finding in report.repairs:
            assert finding.fix is not None
            click.echo(f"Fixing {finding.check}: {finding.fix.title}", err=as_json)
        asyncio.run(repair(report))
        report = asyncio.run(examine())
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report, verbose)
    ctx.exit(1 if report.status == "failed" else 0)


def _show(report: Report, verbose: bool) -> None:
    for finding in report.findings:
        if finding.status != "skipped":
            _show_finding(finding, verbose)
    _show_skipped(report)
    if report.repairs:
        titles = "; ".join(f.fix.title for f in report.repairs if f.fix is not None)
        click.echo(f"\n`agent-brain-postgres doctor --fix` would do: {titles}")
    counts = [
        f"{sum(f.status == status for f in report.findings)} {word}"
        for status, (word, _) in _MARKS.items()
    ]
    click.echo("\n" + ", ".join(counts).lower())


def _show_skipped(report: Report) -> None:
    left_out = [finding for finding in report.findings if finding.status == "skipped"]
    for reason in dict.fromkeys(finding.seen for finding in left_out):
        names = ", ".join(finding.check for finding in left_out if finding.seen == reason)
        click.echo(f"{click.style('skipped ', fg='bright_black')} {names}: {reason}")


def _show_finding(finding: Finding, verbose: bool) -> None:
    word, color = _MARKS[finding.status]
    click.echo(f"{click.style(f'{word:8}', fg=color)} {finding.check:15} {finding.seen}")
    if verbose or finding.check == "settings" or finding.status == "failed":
        for detail in finding.details:
            click.echo(f"{'':24} {detail}")
    if finding.mend:
        click.echo(f"{'':24} -> {finding.mend}")
