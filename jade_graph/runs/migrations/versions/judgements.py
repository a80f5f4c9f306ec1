"""What judges said of the passages of a run. Some stores without a written revision have the table already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "judgements",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("judge", sa.String(64), primary_key=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("calls", "unreadable", "tokens")),
        if_not_exists=True,
    )
