"""The first schema: runs, their trace nodes and their transitions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "jade_store",
        sa.Column("key", sa.String(40), primary_key=True),
        sa.Column("value", sa.String(200), nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("question_id", sa.String(200), nullable=False, index=True),
        sa.Column("preset", sa.String(80), nullable=False, index=True),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False, index=True),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("error", sa.String(80)),
        sa.Column("error_message", sa.Text, nullable=False),
        sa.Column("plan", sa.String(200), nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("rounds", "sub_questions", "retrievals", "calls")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("prompt_tokens", "action_tokens")),
        sa.Column("illegal_actions", sa.Integer, nullable=False),
        sa.Column("backbone_version", sa.String(200), nullable=False),
        sa.Column("graph_hash", sa.String(64), nullable=False),
        sa.Column("corpus_id", sa.String(200), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False, index=True),
        sa.Column("wall_ms", sa.Float(53), nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    op.create_table(
        "trace_nodes",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("parent", sa.String(200)),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("resolved", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("plan", sa.String(200), nullable=False),
        sa.Column("order", sa.String(16)),
        sa.Column("children", sa.Text, nullable=False),
        sa.Column("error", sa.String(80)),
    )
    op.create_table(
        "transitions",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("question_id", sa.String(200), nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("round", "step", "depth")),
        sa.Column("node", sa.String(40), nullable=False),
        sa.Column("trace_node", sa.String(200), nullable=False),
        sa.Column("role", sa.String(40), nullable=False),
        sa.Column("agent_trainable", sa.Boolean, nullable=False),
        sa.Column("plan", sa.String(200), nullable=False),
        sa.Column("prompt_messages", sa.Text, nullable=False),
        sa.Column("prompt_token_ids", sa.LargeBinary, nullable=False),
        sa.Column("action_text", sa.Text, nullable=False),
        sa.Column("action_token_ids", sa.LargeBinary, nullable=False),
        sa.Column("old_logprobs", sa.LargeBinary, nullable=False),
        sa.Column("sampling", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.String(16), nullable=False),
        sa.Column("truncated", sa.Boolean, nullable=False),
        sa.Column("prompt_cut", sa.Boolean, nullable=False),
        sa.Column("parsed", sa.Text, nullable=False),
        sa.Column("valid", sa.Boolean, nullable=False),
        sa.Column("violation", sa.String(80)),
        sa.Column("fallback_used", sa.Boolean, nullable=False),
        sa.Column("rewards", sa.Text, nullable=False),
        *(sa.Column(name, sa.Float(53)) for name in ("reward", "value", "advantage", "return")),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.Column("counters_before", sa.Text, nullable=False),
        sa.Column("counters_after", sa.Text, nullable=False),
        *(sa.Column(name, sa.Float(53), nullable=False) for name in ("started_ms", "latency_ms", "queue_ms")),
        sa.Column("backbone_version", sa.String(200), nullable=False),
        sa.Column("graph_hash", sa.String(64), nullable=False),
        sa.Column("corpus_id", sa.String(200), nullable=False),
        sa.Column("error", sa.String(80)),
    )
