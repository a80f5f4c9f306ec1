"""Rollouts and which runs they have, and what users said of a run.

Stores of a time before revisions were written down may have these tables already.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "rollout_runs",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("rollout_id", sa.String(200), nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_rollout_runs_rollout_id", "rollout_runs", ["rollout_id"], if_not_exists=True)
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("rating", sa.Float(53)),
        sa.Column("clicked", sa.Text, nullable=False),
        sa.Column("used", sa.Text, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("source", sa.String(80), nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_feedback_run_id", "feedback", ["run_id"], if_not_exists=True)
