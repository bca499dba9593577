"""`doctor`: the first failed line names the cause; nothing changes; `--fix` does what it lists."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict

from agent_brain_postgres import PostgresBackend
from agent_brain_postgres.cli import main
from agent_brain_postgres.deploy import env_file
from agent_brain_postgres.doctor import CHECKS, Finding, Report, examine
from tests import servers
from tests.conftest import DIMENSIONS, config_for
from tests.test_deploy_ports import listening

Environment = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, in which doctor is run."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


@pytest.fixture(scope="module")
def own() -> Iterator[servers.Server]:
    with servers.running() as server:
        server.execute(
            "CREATE ROLE ordinary LOGIN PASSWORD 'ordinary'",
            "CREATE DATABASE theirs OWNER ordinary",
            "CREATE DATABASE indexed",
        )
        yield server


def use(monkeypatch: Environment, server: servers.Server, **parameters: str | int) -> None:
    """Configure a server through the environment, as a deployment does."""
    given: dict[str, Any] = {**conninfo_to_dict(server.conninfo(**parameters)), **parameters}
    names = {"dbname": "DATABASE", "sslmode": "SSL_MODE", "sslrootcert": "SSL_ROOT_CERT"}
    for key, value in given.items():
        name = names.get(key, key.upper())
        monkeypatch.setenv(f"AGENT_BRAIN_POSTGRES_{name}", str(value))


def diagnose() -> Report:
    return asyncio.run(examine())


def first_failure(report: Report) -> Finding:
    return next(finding for finding in report.findings if finding.status == "failed")


def doctor(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["doctor", *arguments])


def finding(report: Report, check: str) -> Finding:
    return next(found for found in report.findings if found.check == check)


def assert_named(report: Report, check: str, *words: str) -> None:
    """The first failed line names the cause, and says what mends it."""
    failure = first_failure(report)
    assert failure.check == check, failure
    for word in words:
        assert word in failure.seen, failure
    assert failure.mend


# The causes, each on a real server.


def test_no_server(monkeypatch: Environment) -> None:
    with listening() as port:
        pass
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PORT", str(port))
    monkeypatch.setattr("agent_brain_postgres.deploy.ports.PREFERRED", range(0))
    assert_named(diagnose(), "tcp", "no server", f"localhost:{port}")


def test_wrong_port(own: servers.Server, project: Path, monkeypatch: Environment) -> None:
    use(monkeypatch, own, port=servers.free_port())
    (project / env_file.NAME).write_text(f"POSTGRES_PORT={own.port}\n")
    report = diagnose()
    assert_named(report, "tcp", "wrong port", f"PostgreSQL answers on port {own.port}")
    assert first_failure(report).mend == f"export AGENT_BRAIN_POSTGRES_PORT={own.port}"


class Greeting(BaseRequestHandler):
    """What a mail server says first."""

    def handle(self) -> None:
        self.request.sendall(b"220 mail.example.com\r\n")


def test_a_port_where_something_else_listens(monkeypatch: Environment) -> None:
    with ThreadingTCPServer(("127.0.0.1", 0), Greeting) as mail:
        Thread(target=mail.serve_forever).start()
        monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PORT", str(mail.server_address[1]))
        report = diagnose()
        mail.shutdown()
    assert_named(report, "tcp", "is not PostgreSQL", "wrong port")


def test_a_server_that_hangs(own: servers.Server, monkeypatch: Environment) -> None:
    use(monkeypatch, own)
    monkeypatch.setattr("agent_brain_postgres.doctor.network.PATIENCE", 0.5)
    own.pause()
    try:
        report = diagnose()
    finally:
        own.resume()
    assert_named(report, "tcp", "does not answer", "hangs")


def test_wrong_password(own: servers.Server, monkeypatch: Environment) -> None:
    use(monkeypatch, own, password="not it")
    report = diagnose()
    assert_named(report, "authentication", "wrong password", "env: AGENT_BRAIN_POSTGRES_PASSWORD")
    assert "not it" not in json.dumps(report.as_dict())


def test_no_password(own: servers.Server, monkeypatch: Environment) -> None:
    use(monkeypatch, own)
    monkeypatch.delenv("AGENT_BRAIN_POSTGRES_PASSWORD")
    assert_named(diagnose(), "authentication", "no password")


def test_missing_database(own: servers.Server, monkeypatch: Environment) -> None:
    use(monkeypatch, own, dbname="nowhere")
    report = diagnose()
    assert_named(report, "authentication", "database 'nowhere' does not exist")
    assert first_failure(report).mend.startswith("createdb ")


def test_no_pgvector(monkeypatch: Environment) -> None:
    with (
        servers.installation_without_pgvector() as installation,
        servers.running(installation=installation) as server,
    ):
        use(monkeypatch, server)
        assert_named(diagnose(), "pgvector", "does not have pgvector")


def test_pgvector_0_6_on_the_server(monkeypatch: Environment) -> None:
    with (
        servers.installation_with_old_pgvector("0.6.2") as installation,
        servers.running(installation=installation) as server,
    ):
        use(monkeypatch, server)
        assert_named(diagnose(), "pgvector", "pgvector 0.6.2", "0.7.0 or newer")
        server.execute("CREATE EXTENSION vector")
        assert_named(diagnose(), "pgvector", "the database has pgvector 0.6.2")


def test_no_right_to_create_the_extension(
    own: servers.Server, monkeypatch: Environment
) -> None:
    use(monkeypatch, own, dbname="theirs", user="ordinary", password="ordinary")
    assert_named(diagnose(), "pgvector", "no right to create the extension", "ordinary")


def test_the_command_that_it_gives_mends_it(
    own: servers.Server, monkeypatch: Environment
) -> None:
    own.execute("CREATE DATABASE mended OWNER ordinary")
    use(monkeypatch, own, dbname="mended", user="ordinary", password="ordinary")
    command = shlex.split(first_failure(diagnose()).mend)
    command[0] = str(own.installation / "bin" / "psql")
    done = subprocess.run(command, env={"PGPASSWORD": servers.PASSWORD}, check=False)
    assert done.returncode == 0
    assert diagnose().status != "failed"


def test_no_right_to_create_the_schema(own: servers.Server, monkeypatch: Environment) -> None:
    own.execute("CREATE DATABASE notheirs")
    own.execute("CREATE EXTENSION vector", database="notheirs")
    use(monkeypatch, own, dbname="notheirs", user="ordinary", password="ordinary")
    report = diagnose()
    assert_named(report, "rights", "may not create the schema")
    assert shlex.split(first_failure(report).mend) == [
        *("psql", "--host", "127.0.0.1", "--port", str(own.port), "--username", "postgres"),
        *("--dbname", "notheirs", "--command", "GRANT CREATE ON DATABASE notheirs TO ordinary"),
    ]


@pytest.fixture
def stored(dsn: str, monkeypatch: Environment) -> str:
    """A store with some chunks, and the settings that lead to it."""
    asyncio.run(_store(dsn))
    monkeypatch.setenv("DATABASE_URL", dsn)
    return dsn


async def _store(dsn: str) -> None:
    backend = PostgresBackend(config_for(dsn), embedding_dimensions=DIMENSIONS)
    await backend.initialize()
    ids = [f"c{i}" for i in range(50)]
    vectors = [[float(i + 1)] + [1.0] * (DIMENSIONS - 1) for i in range(50)]
    await backend.upsert_documents(ids, vectors, [f"text {i}" for i in range(50)], [{}] * 50)
    await backend.set_embedding_metadata("openai", "text-embedding-3-small", DIMENSIONS)
    await backend.close()


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_wrong_dimensions(stored: str, monkeypatch: Environment) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_EMBEDDING_DIMENSIONS", "1536")
    assert_named(diagnose(), "dimensions", str(DIMENSIONS), "1536")


def test_wrong_dimensions_of_the_configured_provider(stored: str, project: Path) -> None:
    (project / "config.yaml").write_text("embedding: {model: text-embedding-3-large}\n")
    assert_named(diagnose(), "dimensions", str(DIMENSIONS), "3072", "text-embedding-3-large")


def test_another_embedding_model_of_the_same_dimensions(stored: str, project: Path) -> None:
    (project / "config.yaml").write_text("embedding: {provider: ollama, model: mine}\n")
    assert_named(diagnose(), "provider", "openai/text-embedding-3-small", "ollama/mine")


def invalidate(dsn: str, name: str = "chunks_lexemes") -> None:
    execute(
        dsn,
        "UPDATE pg_index SET indisvalid = false"
        f" WHERE indexrelid = 'agent_brain.{name}'::regclass",
    )


def test_invalid_index(stored: str) -> None:
    invalidate(stored)
    assert_named(diagnose(), "index", "invalid index", "chunks_lexemes")


@pytest.fixture(scope="module")
def secured() -> Iterator[tuple[servers.Server, Path]]:
    installation = servers.tls_installation()
    if installation is None:
        pytest.skip(
            "no server with TLS: the embedded PostgreSQL is built without; "
            "apt-get install postgresql openssl gives one"
        )
    with servers.running(installation=installation, start=False) as server:
        certificate = servers.certify(server)
        rules = server.data / "pg_hba.conf"
        rules.write_text(rules.read_text().replace("host ", "hostssl "))
        key = certificate.with_suffix(".key")
        server.start("ssl=on", f"ssl_cert_file={certificate}", f"ssl_key_file={key}")
        yield server, certificate


def test_tls_required(secured: tuple[servers.Server, Path], monkeypatch: Environment) -> None:
    use(monkeypatch, secured[0], sslmode="disable")
    assert_named(diagnose(), "tls", "TLS is required")


def test_certificate_not_trusted(
    secured: tuple[servers.Server, Path], monkeypatch: Environment
) -> None:
    use(monkeypatch, secured[0], sslmode="verify-full")
    assert_named(diagnose(), "tls", "certificate not trusted")


def test_certificate_of_another_authority(
    secured: tuple[servers.Server, Path], tmp_path: Path, monkeypatch: Environment
) -> None:
    with servers.running(start=False) as stranger:
        other = tmp_path / "other.crt"
        other.write_bytes(servers.certify(stranger).read_bytes())
    use(monkeypatch, secured[0], sslmode="verify-ca", sslrootcert=str(other))
    assert_named(diagnose(), "tls", "certificate not trusted")


def test_a_trusted_certificate_is_in_order(
    secured: tuple[servers.Server, Path], monkeypatch: Environment
) -> None:
    server, certificate = secured
    use(monkeypatch, server, sslmode="verify-full", sslrootcert=str(certificate))
    assert finding(diagnose(), "tls").seen == "encrypted (ssl_mode verify-full, certificate verified)"


def test_tls_asked_of_a_server_without(own: servers.Server, monkeypatch: Environment) -> None:
    use(monkeypatch, own, sslmode="require")
    assert_named(diagnose(), "tls", "the server has no TLS")


# More of what goes wrong.


def test_a_host_that_does_not_resolve(monkeypatch: Environment) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_HOST", "nowhere.invalid")
    assert_named(diagnose(), "dns", "nowhere.invalid", "env: AGENT_BRAIN_POSTGRES_HOST")


def test_of_several_hosts_one_that_answers_is_enough(
    own: servers.Server, monkeypatch: Environment
) -> None:
    use(monkeypatch, own, host="127.0.0.2,127.0.0.1")
    report = diagnose()
    assert report.status == "warning", report
    assert "127.0.0.2" in finding(report, "tcp").seen


def test_wrong_settings_are_named_and_nothing_else_is_tried(monkeypatch: Environment) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PORT", "70000")
    report = diagnose()
    assert_named(report, "settings", "port", "70000")
    assert {f.status for f in report.findings[1:]} == {"skipped"}


def test_a_user_who_does_not_exist(own: servers.Server, monkeypatch: Environment) -> None:
    use(monkeypatch, own, user="stranger")
    assert_named(diagnose(), "authentication", "no such user")


def test_a_language_that_the_server_does_not_have(stored: str, monkeypatch: Environment) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_LANGUAGE", "klingon")
    assert_named(diagnose(), "language", "klingon", "english")


def test_tables_of_another_version(stored: str) -> None:
    execute(stored, "UPDATE agent_brain.meta SET value = '99' WHERE key = 'schema_version'")
    assert_named(diagnose(), "schema", "99")


def test_a_pool_larger_than_the_server_allows(stored: str, monkeypatch: Environment) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_POOL_SIZE", "5000")
    assert_named(diagnose(), "connections", "pool_max 5000")


def test_a_missing_index_is_a_warning(stored: str) -> None:
    execute(stored, "DROP INDEX agent_brain.chunks_metadata")
    found = finding(diagnose(), "index")
    assert (found.status, "chunks_metadata is missing" in found.seen) == ("warning", True)


def test_dead_rows_are_a_warning(stored: str) -> None:
    execute(
        stored,
        "ALTER TABLE agent_brain.chunks SET (autovacuum_enabled = true)",
        "INSERT INTO agent_brain.chunks SELECT 'd' || i, '', '{}', array_fill(1, ARRAY[8])::vector,"
        " '', 0, '' FROM generate_series(1, 3000) i",
        "DELETE FROM agent_brain.chunks WHERE chunk_id LIKE 'd%'",
        "SELECT pg_stat_force_next_flush()",
    )
    found = finding(diagnose(), "tables")
    assert (found.status, "bloat" in found.seen) == ("warning", True)


def test_an_environment_file_that_others_may_read_is_a_warning(
    stored: str, project: Path
) -> None:
    path = project / env_file.NAME
    path.write_text("A=1\n")
    path.chmod(0o644)
    found = finding(diagnose(), "files")
    assert (found.status, found.mend) == ("warning", f"chmod 600 {path}")


def test_two_passwords_in_one_file_are_a_warning(project: Path) -> None:
    path = project / env_file.NAME
    path.write_text(
        "COMPOSE_PROJECT_NAME=x\nPOSTGRES_PASSWORD=a\nAGENT_BRAIN_POSTGRES_PASSWORD=b\n"
    )
    path.chmod(0o600)
    assert "another password" in finding(diagnose(), "files").seen


def test_shared_memory_smaller_than_an_index_build_is_a_warning(
    own: servers.Server, project: Path, monkeypatch: Environment
) -> None:
    use(monkeypatch, own)
    state = project / ".agent-brain"
    state.mkdir()
    compose = "services:\n  postgres:\n    shm_size: ${SHM:-16mb}\n"
    (state / "docker-compose.yml").write_text(compose)
    found = finding(diagnose(), "shm")
    assert (found.status, "16MB" in found.seen) == ("warning", True)


# When all is well, and what doctor promises.


def test_a_working_store_is_green(stored: str) -> None:
    report = diagnose()
    assert [f for f in report.findings if f.status == "failed"] == []
    assert {f.check for f in report.findings} == {c.name for c in CHECKS} - {"embedded"}
    assert "50 chunks" in finding(report, "searches").seen


def test_every_check_is_reported_also_when_nothing_runs(monkeypatch: Environment) -> None:
    with listening() as port:
        pass
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PORT", str(port))
    report = diagnose()
    assert {f.check for f in report.findings} == {c.name for c in CHECKS} - {"embedded"}


def test_sources_are_shown_and_the_password_is_not(
    own: servers.Server, monkeypatch: Environment
) -> None:
    use(monkeypatch, own)
    for output in (doctor().output, doctor("--json").output, doctor("-v").output):
        assert "(env: AGENT_BRAIN_POSTGRES_HOST)" in output
        assert servers.PASSWORD not in output


def test_the_exit_code_is_1_when_a_check_failed(monkeypatch: Environment) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_HOST", "nowhere.invalid")
    assert doctor().exit_code == 1


def test_the_exit_code_is_0_when_none_failed(stored: str) -> None:
    result = doctor()
    assert result.exit_code == 0, result.output


def test_json_is_for_machines(stored: str) -> None:
    document = json.loads(doctor("--json").stdout)
    assert document["status"] in ("ok", "warning")
    assert set(document["checks"][0]) == {"check", "status", "seen", "mend", "fixable", "details"}


def snapshot(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT c.oid, c.relname, c.relfilenode, x.indisvalid FROM pg_class c"
            " LEFT JOIN pg_index x ON x.indexrelid = c.oid"
            " WHERE c.relnamespace NOT IN ('pg_toast'::regnamespace) ORDER BY 1"
        ).fetchall()


def test_without_fix_nothing_changes(stored: str, project: Path) -> None:
    invalidate(stored)
    before = snapshot(stored)
    assert doctor().exit_code == 1
    assert snapshot(stored) == before
    assert list(project.iterdir()) == []


def test_fix_rebuilds_an_invalid_index_and_says_so(stored: str) -> None:
    invalidate(stored)
    result = doctor("--fix")
    assert 'Fixing index: REINDEX INDEX CONCURRENTLY "agent_brain"."chunks_lexemes"' in result.output
    assert result.exit_code == 0, result.output


def test_fix_creates_the_extension(own: servers.Server, monkeypatch: Environment) -> None:
    own.execute("CREATE DATABASE fixme")
    use(monkeypatch, own, dbname="fixme")
    result = doctor("--fix")
    assert "Fixing pgvector: CREATE EXTENSION vector" in result.output
    assert finding(diagnose(), "pgvector").seen.startswith("pgvector 0.")


def test_fix_with_nothing_to_mend_does_nothing(stored: str) -> None:
    execute(stored, "ANALYZE agent_brain.chunks")
    before = snapshot(stored)
    assert "Fixing" not in doctor("--fix").output
    assert snapshot(stored) == before


def test_searches_of_a_large_store_are_seen_to_use_the_index(
    stored: str, monkeypatch: Environment
) -> None:
    execute(
        stored,
        "INSERT INTO agent_brain.chunks SELECT 'd' || i, '', '{}',"
        f" ARRAY[{', '.join(['random()'] * DIMENSIONS)}]::vector, '', 0, ''"
        " FROM generate_series(1, 4000) i",
        "INSERT INTO agent_brain.lexeme_statistics VALUES ('', 4000, 0)",
    )
    without = finding(diagnose(), "searches")
    assert (without.status, "without a vector index" in without.seen) == ("warning", True)
    execute(
        stored,
        "CREATE INDEX chunks_hnsw_halfvec_cosine ON agent_brain.chunks USING hnsw"
        " ((l2_normalize(embedding)::halfvec(8)) halfvec_ip_ops)",
        "ANALYZE agent_brain.chunks",
    )
    with_index = finding(diagnose(), "searches")
    assert with_index.seen.endswith("use chunks_hnsw_halfvec_cosine")


def test_the_embedded_server_without_data_says_what_to_do(
    project: Path, monkeypatch: Environment
) -> None:
    monkeypatch.setenv("AGENT_BRAIN_POSTGRES_EMBEDDED", str(project / "pg"))
    report = diagnose()
    assert_named(report, "embedded", "no server", "holds no data yet")
    assert not (project / "pg").exists()


def test_a_silent_firewall_is_told_from_a_closed_port(monkeypatch: Environment) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        clients = [socket.socket() for _ in range(3)]
        for client in clients:  # The queue of unaccepted connections is full afterwards.
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        monkeypatch.setenv("AGENT_BRAIN_POSTGRES_HOST", "127.0.0.1")
        monkeypatch.setenv("AGENT_BRAIN_POSTGRES_PORT", str(port))
        monkeypatch.setattr("agent_brain_postgres.doctor.network.PATIENCE", 0.3)
        report = diagnose()
        for client in clients:
            client.close()
    assert_named(report, "tcp", "does not answer", "firewall")
