"""The schema: made once however many begin, refused when it is newer; what each role may not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner
from tests.ledger_by_hand import HandMade
from tests.postgres_server import Server

from litellm_ledger import LedgerPathError, UnsupportedFormat
from litellm_ledger._cli.app import app
from litellm_ledger._postgres import database, schema
from litellm_ledger._shipping.road import Road
from litellm_ledger._shipping.shipper import Shipper

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def owner(database_url: str) -> AsyncIterator[object]:
    """A connection of the owner to a database with the schema."""
    connection = await database.connect(database_url)
    yield connection
    await database.close(connection)


async def test_ten_at_once_make_one_schema(empty_url: str) -> None:
    connections = [await database.connect(empty_url) for _ in range(10)]
    applied = await asyncio.gather(*map(schema.init, connections))
    assert sorted(map(len, applied)) == [0] * 9 + [len(schema.migrations())]
    for connection in connections:
        await schema.check(connection)
        await database.close(connection)


async def test_a_newer_schema_is_refused_and_untouched(owner: object) -> None:
    await owner.execute(
        "INSERT INTO litellm_ledger.schema_version (version, name) VALUES (9999, 'later')"
    )
    for step in (schema.check, schema.init, schema.migrate):
        with pytest.raises(UnsupportedFormat, match=r"version 9999.*upgrade"):
            await step(owner)


async def test_an_empty_database_says_init_and_an_older_schema_migrate(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await database.connect(empty_url)
    for step in (schema.check, schema.migrate):
        with pytest.raises(LedgerPathError, match="database init"):
            await step(connection)
    await schema.init(connection)
    later = schema.Migration(schema.latest() + 1, "later", "CREATE TABLE litellm_ledger.later ()")
    broken = schema.Migration(later.version + 1, "broken", "SELECT 1; SELECT 1/0")
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: (*known, later, broken))
    with pytest.raises(LedgerPathError, match="database migrate"):
        await schema.check(connection)
    with pytest.raises(Exception, match="division by zero"):
        await schema.migrate(connection)
    assert await schema.version(connection) == later.version - 1  # all of them, or none
    monkeypatch.setattr(schema, "migrations", lambda: (*known, later))
    assert await schema.migrate(connection) == [later]
    await schema.check(connection)
    await database.close(connection)


async def test_a_schema_that_is_not_ours_is_left_alone(empty_url: str) -> None:
    connection = await database.connect(empty_url)
    await connection.execute("CREATE SCHEMA litellm_ledger; CREATE TABLE litellm_ledger.x ()")
    await database.close(connection)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["database", "init", empty_url])
    assert done.exit_code == 2
    assert "already exists; it is not one that litellm-ledger made" in done.stderr


# -- partitions ----------------------------------------------------------------------------------


async def _add(connection: object, seq: int, month: int, ts: datetime) -> None:
    await connection.execute(
        "INSERT INTO litellm_ledger.calls (writer_id, month, seq, ts) VALUES (1, $1, $2, $3)",
        month,
        seq,
        ts,
    )


async def test_what_is_outside_never_stands_in_the_way_of_its_month(owner: object) -> None:
    ts = datetime(2025, 5, 5, tzinfo=UTC)
    await _add(owner, 1, 0, ts)
    with pytest.raises(Exception, match="no partition"):
        await _add(owner, 2, 202505, ts)
    made = await owner.fetch("SELECT litellm_ledger.make_partitions('{202505, 202505, 202504}')")
    assert {202504, 202505} <= {row[0] for row in made}
    await _add(owner, 2, 202505, ts)
    with pytest.raises(Exception, match="calls_202505_ts"):
        await _add(owner, 3, 202505, datetime(2025, 6, 1, tzinfo=UTC))
    assert await owner.fetchval("SELECT count(*) FROM litellm_ledger.calls") == 2
    found = await schema.standing(owner)
    assert (found.outside, found.faults) == (1, [])


async def test_nobody_can_have_thousands_of_partitions_made(owner: object) -> None:
    before = await owner.fetch("SELECT litellm_ledger.partitions()")
    asked = "SELECT litellm_ledger.make_partitions('{190001, 0, -1, 202613, 999912, 100000}')"
    assert await owner.fetch(asked) == before
    edges = await owner.fetchrow(
        "SELECT array_agg(to_char(t - make_interval(years => 10, months => n), 'YYYYMM')::int), "
        "array_agg(to_char(t + make_interval(years => 1, months => n), 'YYYYMM')::int) "
        "FROM generate_series(0, 2) n, date_trunc('month', now() AT TIME ZONE 'UTC') t"
    )
    made = await owner.fetch("SELECT litellm_ledger.make_partitions($1)", [*edges[0], *edges[1]])
    new = {row[0] for row in made} - {row[0] for row in before}
    assert new == {edges[0][0], edges[1][0]}


async def test_a_question_reads_only_its_months(owner: object) -> None:
    await owner.execute("SELECT litellm_ledger.make_partitions('{202501, 202502, 202503}')")
    plan = await owner.fetch(
        "EXPLAIN SELECT sum(cost_picousd) FROM litellm_ledger.calls "
        "WHERE ts >= '2025-02-05Z' AND ts < '2025-02-10Z' AND tags @> '{\"user\": \"ann\"}'"
    )
    text = "\n".join(row[0] for row in plan)
    assert "calls_202502" in text
    assert "calls_outside" in text
    assert "calls_202501" not in text
    assert "calls_202503" not in text


async def test_a_partition_is_made_beside_a_shipper_and_a_report(
    owner: object, database_url: str
) -> None:
    shipper, report = [await database.connect(database_url) for _ in range(2)]
    async with shipper.transaction(), report.transaction():
        await _add(shipper, 1, 0, datetime(2025, 5, 5, tzinfo=UTC))
        await report.fetch("SELECT * FROM litellm_ledger.calls")
        await owner.execute("SET lock_timeout = '1ms'")
        await owner.fetch("SELECT litellm_ledger.make_partitions('{202505}')")
    await database.close(shipper)
    await database.close(report)


async def test_two_at_once_make_a_partition_once(database_url: str) -> None:
    connections = [await database.connect(database_url) for _ in range(6)]
    asked = "SELECT litellm_ledger.make_partitions('{202501, 202502, 202503}')"
    found = await asyncio.gather(*(one.fetch(asked) for one in connections))
    assert all({202501, 202502, 202503} <= {row[0] for row in rows} for rows in found)
    for connection in connections:
        await database.close(connection)


# -- roles ---------------------------------------------------------------------------------------

_FORBIDDEN = [
    "UPDATE litellm_ledger.calls SET cost_picousd = 0",
    "DELETE FROM litellm_ledger.calls",
    "TRUNCATE litellm_ledger.calls",
    "DELETE FROM litellm_ledger.calls_outside",
    "INSERT INTO litellm_ledger.calls_outside (writer_id, month, seq, ts) VALUES (1, 0, 9, now())",
    "TRUNCATE litellm_ledger.calls_outside",
    "DELETE FROM litellm_ledger.writers",
    "UPDATE litellm_ledger.writers SET writer = 'x'",
    "UPDATE litellm_ledger.writers SET writer_id = DEFAULT",
    "INSERT INTO litellm_ledger.writers (writer, shipped) VALUES ('x', 1)",
    "UPDATE litellm_ledger.batches SET sha256 = ''",
    "DELETE FROM litellm_ledger.batches",
    "DELETE FROM litellm_ledger.gaps",
    "UPDATE litellm_ledger.gaps SET reason = 'x'",
    "DELETE FROM litellm_ledger.additions",
    "DELETE FROM litellm_ledger.rejected",
    "DELETE FROM litellm_ledger.beaten",
    "UPDATE litellm_ledger.in_flight SET seq = 1",
    "INSERT INTO litellm_ledger.deeds (did, who, detail) VALUES ('x', 'x', '{}')",
    "INSERT INTO litellm_ledger.schema_version (version, name) VALUES (99, 'x')",
    "DELETE FROM litellm_ledger.schema_version",
    "SELECT litellm_ledger.make_partition(202501)",
    "CREATE TABLE litellm_ledger.x ()",
    "CREATE FUNCTION litellm_ledger.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP TABLE litellm_ledger.calls",
    "ALTER TABLE litellm_ledger.calls ADD x int",
    "DROP TRIGGER checkpoint_goes_forward ON litellm_ledger.writers",
    "UPDATE litellm_ledger.budget_windows SET lent = 0",
    "INSERT INTO litellm_ledger.budget_windows VALUES ('c', 's', 0, now(), 'NaN')",
    "UPDATE litellm_ledger.leases SET returned = granted",
    "DELETE FROM litellm_ledger.leases",
    "SELECT litellm_ledger.tell_lease('c', 's', 0, 'h', 0, 0, 0)",
    "INSERT INTO litellm_ledger.batches (writer_id, rewritten) VALUES (1, 1)",
    "INSERT INTO litellm_ledger.gaps (writer_id, here) VALUES (1, true)",
    "DELETE FROM litellm_ledger.expired_sums",
]
_OF_WRITER = [
    "INSERT INTO litellm_ledger.writers (writer, host) VALUES ('w', 'h')",
    "UPDATE litellm_ledger.writers SET shipped = 2, usage = 1, started = 1 WHERE writer_id = 1",
    "INSERT INTO litellm_ledger.calls (writer_id, month, seq, ts) VALUES (1, 0, 2, now())",
    "INSERT INTO litellm_ledger.in_flight (writer_id, seq, line) VALUES (1, 1, '')",
    "DELETE FROM litellm_ledger.in_flight",
    "SELECT litellm_ledger.make_partitions('{202501}')",
    "SELECT litellm_ledger.make_partitions_ahead()",
]


@pytest_asyncio.fixture
async def somebody(postgres: Server) -> AsyncIterator[None]:
    """A role without any rights, which tests give some."""
    connection = await database.connect(postgres.socket_url())
    await connection.execute("CREATE ROLE somebody LOGIN")
    yield
    await connection.execute("DROP ROLE somebody")
    await database.close(connection)


@pytest.mark.usefixtures("somebody")
@pytest.mark.parametrize("role", ["ledger_writer", "ledger_reader", None])
async def test_each_role_may_do_its_work_and_nothing_else(
    owner: object, database_url: str, role: str | None
) -> None:
    if role is not None:
        await owner.execute(f"GRANT {role} TO somebody")
    connection = await database.connect(database_url)
    await connection.execute("SET ROLE somebody")
    for allowed in _OF_WRITER:
        if role == "ledger_writer":
            await connection.execute(allowed)
        else:
            with pytest.raises(Exception, match="permission denied"):
                await connection.execute(allowed)
    read = "SELECT * FROM litellm_ledger.calls JOIN litellm_ledger.writers USING (writer_id)"
    if role is None:
        with pytest.raises(Exception, match="permission denied"):
            await connection.execute(read)
    else:
        await connection.execute(read)
        await connection.execute("SELECT * FROM litellm_ledger.usage")
        await schema.check(connection)
        found = await schema.standing(connection)
        assert (found.ships, found.reads, found.owns) == (role == "ledger_writer", True, False)
    for forbidden in _FORBIDDEN:
        with pytest.raises(Exception, match=r"permission denied|must be owner|no privileges"):
            await connection.execute(forbidden)
    await database.close(connection)


async def test_a_checkpoint_never_goes_back(owner: object) -> None:
    await owner.execute(_OF_WRITER[0])
    await owner.execute(_OF_WRITER[1])
    with pytest.raises(Exception, match="goes from 2 to 0"):
        await owner.execute("UPDATE litellm_ledger.writers SET shipped = 0, usage = 0, started = 0")


@pytest.mark.usefixtures("somebody")
async def test_rights_that_somebody_added_are_told(owner: object) -> None:
    await owner.execute(
        "GRANT DELETE, TRUNCATE ON litellm_ledger.calls TO ledger_reader; "
        "GRANT UPDATE (cost_picousd) ON litellm_ledger.calls TO ledger_writer; "
        "GRANT SELECT ON litellm_ledger.calls_outside TO PUBLIC; "
        "GRANT INSERT ON litellm_ledger.expired_sums TO ledger_writer WITH GRANT OPTION; "
        "GRANT EXECUTE ON FUNCTION litellm_ledger.make_partition TO PUBLIC; "
        "GRANT CREATE ON SCHEMA litellm_ledger TO ledger_writer; "
        "CREATE TABLE litellm_ledger.mine (); GRANT ALL ON litellm_ledger.mine TO ledger_writer; "
        "GRANT DELETE ON litellm_ledger.calls TO somebody"
    )
    found = await schema.standing(owner)
    assert found.faults == [
        "calls.cost_picousd: ledger_writer may update",
        "calls: ledger_reader may delete",
        "calls: ledger_reader may truncate",
        "calls_outside: everybody may select",
        "expired_sums: ledger_writer may insert and let others",
        "make_partition(): everybody may execute",
        "schema: ledger_writer may create",
    ]
    await owner.execute("REVOKE ALL ON litellm_ledger.calls FROM somebody")


async def test_the_rights_are_those_of_the_list_and_of_all_that_the_files_make(
    owner: object,
) -> None:
    known = Path(schema.__file__).with_name("sql") / "rights.txt"
    rows = await owner.fetch(schema.statement("rights"), schema._tables())
    assert known.read_text("utf-8").splitlines() == [row[0] for row in rows]
    names = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'litellm_ledger'::regnamespace "
        "AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition ORDER BY 1"
    )
    assert schema._tables() == [row[0] for row in names]
    functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'litellm_ledger'::regnamespace"
    assert all(f"'{row[0]}'" in schema.statement("rights") for row in await owner.fetch(functions))
    defined = f"{functions} AND prosecdef AND proconfig IS DISTINCT FROM $1"
    assert await owner.fetch(defined, ["search_path=pg_catalog, pg_temp"]) == []


@pytest.mark.usefixtures("_template")  # the roles are there
async def test_an_owner_without_the_right_to_make_roles_is_told_what_to_do(
    postgres: Server, empty_url: str
) -> None:
    admin = await database.connect(empty_url)
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE {name} TO plain")
    await admin.execute("ALTER ROLE ledger_writer RENAME TO hidden_writer")
    url = postgres.socket_url(name, "plain")
    try:
        done = await asyncio.to_thread(CliRunner().invoke, app, ["database", "init", url])
        assert done.exit_code == 2
        assert "there is no role ledger_writer, and plain may not create it" in done.stderr
        assert "CREATE ROLE ledger_writer NOLOGIN" in done.stderr
        await admin.execute("ALTER ROLE hidden_writer RENAME TO ledger_writer")
        done = await asyncio.to_thread(CliRunner().invoke, app, ["database", "init", url])
        assert (done.exit_code, done.stderr) == (0, "")
    finally:
        await admin.execute(
            "DO $$ BEGIN ALTER ROLE hidden_writer RENAME TO ledger_writer; "
            "EXCEPTION WHEN undefined_object THEN NULL; END $$; "
            "DROP SCHEMA IF EXISTS litellm_ledger CASCADE; DROP OWNED BY plain; DROP ROLE plain"
        )
        await database.close(admin)


# -- the command ---------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["database", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.asyncio(loop_scope="function")
async def test_the_command_makes_checks_and_names_what_is_wrong(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(*arguments: str) -> object:
        return asyncio.to_thread(run, *arguments)

    status, _, said = await ran("check", empty_url)
    assert (status, said) == (1, "")
    status, _, said = await ran("migrate", empty_url)
    assert status == 2
    assert "run litellm-ledger database init" in said
    status, out, _ = await ran("init", empty_url)
    assert (status, out.splitlines()[0]) == (0, "applied 0001 schema")
    status, out, _ = await ran("migrate", empty_url, "--json")
    assert (status, json.loads(out)["applied"]) == (0, [])
    monkeypatch.setenv("LITELLM_LEDGER_DATABASE", empty_url)
    status, out, _ = await ran()
    assert status == 0
    assert "may ship, read, migrate" in out
    status, out, _ = await ran("check", "--json")
    assert (status, json.loads(out)["ok"]) == (0, True)
    assert json.loads(out)["version"] == schema.latest()
    monkeypatch.delenv("LITELLM_LEDGER_DATABASE")
    assert "say which database" in (await ran("check"))[2]


async def test_the_command_warns_of_a_password_that_others_can_see(postgres: Server) -> None:
    status, out, said = await asyncio.to_thread(run, "check", postgres.url(password="s3cret"))
    assert status == 1
    assert "list of processes" in said
    assert "s3cret" not in out + said


# -- changed by hand -----------------------------------------------------------------------------


async def test_the_shape_is_what_the_files_make(owner: object) -> None:
    assert await schema.changed_by_hand(owner) == []
    rows = await owner.fetch(schema.statement("shape"))
    known = Path(schema.__file__).with_name("sql") / "shape.txt"
    assert known.read_text("utf-8").splitlines() == [row[0] for row in rows]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE litellm_ledger.calls DROP COLUMN latency_ms", "calls.latency_ms double"),
        ("ALTER TABLE litellm_ledger.writers DROP CONSTRAINT every_number_is_accounted_for",
         "constraint writers.every_number_is_accounted_for is missing"),
        ("DROP TRIGGER checkpoint_goes_forward ON litellm_ledger.writers", "checkpoint_goes"),
        ("ALTER TABLE litellm_ledger.in_flight DROP CONSTRAINT in_flight_pkey", "key in_flight"),
        ("ALTER TABLE litellm_ledger.calls ADD COLUMN mine int NOT NULL", "calls.mine integer"),
        ("ALTER TABLE litellm_ledger.calls ALTER attempt TYPE int", "column calls.attempt bigint"),
        ("DROP TABLE litellm_ledger.beaten", "beaten.seq bigint not null is missing"),
    ],
)  # fmt: skip
async def test_ship_refuses_a_schema_that_was_changed_by_hand(
    owner: object, database_url: str, tmp_path: Path, change: str, said: str
) -> None:
    HandMade(tmp_path / "usage").filled({"status": "ok"})
    await owner.execute("DROP VIEW litellm_ledger.usage")  # it rests on columns
    view = "column usage."
    await owner.execute(change)
    wrong = [one for one in await schema.changed_by_hand(owner) if not one.startswith(view)]
    assert any(said in one for one in wrong), wrong
    shipper = Shipper(database_url, [Road(tmp_path / "usage", database_url)])
    assert not await shipper.step(all_now=True)
    assert "changed by hand" in str(shipper.failing)
    await shipper.close()
    assert await owner.fetchval("SELECT count(*) FROM litellm_ledger.writers") == 0
    found = await asyncio.to_thread(CliRunner().invoke, app, ["database", "check", database_url])
    assert said in found.output


async def test_an_index_and_a_column_of_ones_own_are_nobodys_harm(owner: object) -> None:
    await owner.execute(
        "CREATE INDEX ON litellm_ledger.calls (model); CREATE TABLE litellm_ledger.mine ("
        "x int NOT NULL CHECK (x > 0)); ALTER TABLE litellm_ledger.calls ADD COLUMN mine text"
    )
    assert await schema.changed_by_hand(owner) == []
