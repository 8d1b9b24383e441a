"""Runs migrations on the database whose URL `storage.database` hands over."""

from alembic import context

from storage.database import open_engine
from storage.models import Base

url = context.config.get_main_option("sqlalchemy.url")
if url is None:
    raise RuntimeError("migrations are run through storage.database.migrate")
engine = open_engine(url)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
engine.dispose()
