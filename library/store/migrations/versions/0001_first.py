"""The first catalogue: adapters, and what each has several of."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    import sqlalchemy as sa
    from alembic import op

    # Bytes order text on PostgreSQL too, as SQLite and Python do.
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

    def key() -> list[sa.Column]:
        return [sa.Column(name, text, primary_key=True) for name in ("library", "path")]

    def child(name: str, *columns: sa.Column) -> None:
        whole = sa.ForeignKeyConstraint(
            ["library", "path"], ["adapters.library", "adapters.path"], ondelete="CASCADE"
        )
        op.create_table(name, *key(), *columns, whole)

    op.create_table(
        "adapters",
        *key(),
        sa.Column("stamp", text, nullable=False),
        sa.Column("id", text),
        sa.Column("sha256", text),
        sa.Column("task", text, nullable=False),
        sa.Column("variant", sa.Integer, nullable=False),
        sa.Column("recipe", text, nullable=False),
        sa.Column("base_model", text, nullable=False),
        sa.Column("base_sha256", text),
        sa.Column("layout_digest", text),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("seed", text),
        sa.Column("license_class", text),
        sa.Column("shard", sa.Integer),
        sa.Column("steps", sa.Integer),
        sa.Column("created", text),
    )
    op.create_index("adapters_by_id", "adapters", ["library", "id"])
    op.create_index("adapters_by_task", "adapters", ["library", "task"])

    def part(name: str) -> sa.Column:
        return sa.Column(name, sa.Integer if name == "position" else text, primary_key=True)

    child("descriptions", part("position"), sa.Column("text", text, nullable=False))
    child("parents", part("position"), sa.Column("parent", text, nullable=False))
    child("labels", part("kind"), part("name"))
    child("scores", part("name"), sa.Column("value", sa.Float))
