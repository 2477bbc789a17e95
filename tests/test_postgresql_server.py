"""The server that the tests start for themselves: real, killed by SIGKILL, and started anew."""

import postgresql
import psycopg
from postgresql import Server


def test_a_killed_server_starts_again_with_what_was_committed(postgresql_url):
    server = Server()
    try:
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("create table kept (number integer)")
            connection.execute("insert into kept values (7)")
        first = server.pid()
        server.kill()
        server.start()
        assert server.pid() != first
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("select number from kept").fetchall() == [(7,)]
    finally:
        server.stop()


def test_each_test_has_a_database_of_its_own(postgresql_url):
    with psycopg.connect(postgresql_url) as connection:
        found = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchall()
    assert found == [(0,)]


def test_a_server_runs_from_a_folder_that_only_its_owner_may_enter(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    copy = postgresql.copy_programs(postgresql.programs(), closed / "programs")
    monkeypatch.setattr(postgresql, "programs", lambda: copy)
    server = Server()
    try:
        server.start()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("select 1").fetchall() == [(1,)]
    finally:
        server.stop()
