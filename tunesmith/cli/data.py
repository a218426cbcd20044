"""`tunesmith data`: from what you have to a file that is worth training on."""

from __future__ import annotations

import typer

from tunesmith.cli import data_change, data_check, data_estimate, data_fix, data_show, data_stats

app = typer.Typer(
    help="Training data: check, repair, convert, split, look, estimate.", no_args_is_help=True
)

app.command(name="check")(data_check.check)
app.command(name="fix")(data_fix.fix)
app.command(name="convert")(data_change.convert)
app.command(name="split")(data_change.split)
app.command(name="stats")(data_stats.stats)
app.command(name="show")(data_show.show)
app.command(name="sample")(data_show.sample)
app.command(name="estimate")(data_estimate.estimate)
