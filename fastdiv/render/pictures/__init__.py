"""Pictures: what plotly draws of a run, described once for the report and for notebooks."""
