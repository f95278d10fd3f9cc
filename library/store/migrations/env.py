"""Run by Alembic: upgrades the connection that `library.store.sql_engine` hands over."""


def run() -> None:
    from alembic import context

    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()


run()
