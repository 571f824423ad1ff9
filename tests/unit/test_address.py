"""What a URL, a service file and the environment say of a database, and what is not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litellm_ledger._postgres.address import Address


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user that runs the tests."""
    import os

    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return


@pytest.mark.parametrize(
    ("url", "hosts", "mode", "place"),
    [
        ("postgresql://db/x", [("db", 5432)], "verify-full", "postgresql://db:5432/x"),
        ("postgres://u:p@db:6543/x", [("db", 6543)], "verify-full", "postgresql://db:6543/x"),
        ("postgresql://db/x?sslmode=require", [("db", 5432)], "require", "postgresql://db:5432/x"),
        ("postgresql://db/x?ssl=true", [("db", 5432)], "require", "postgresql://db:5432/x"),
        ("postgresql://localhost/x", [("localhost", 5432)], "prefer", "postgresql://localhost:5432/x"),
        ("postgresql://127.3.2.1/x", [("127.3.2.1", 5432)], "prefer", "postgresql://127.3.2.1:5432/x"),
        ("postgresql://[::1]:7/x", [("::1", 7)], "prefer", "postgresql://[::1]:7/x"),
        ("postgresql://[2001:db8::1]/x", [("2001:db8::1", 5432)], "verify-full",
         "postgresql://[2001:db8::1]:5432/x"),
        ("postgresql:///x?host=/run/pg&port=7", [("/run/pg", 7)], "prefer",
         "postgresql:///x?host=/run/pg"),
        ("postgresql://%2Frun%2Fpg/x", [("/run/pg", 5432)], "prefer", "postgresql:///x?host=/run/pg"),
        ("postgresql:///x", [], "prefer", "postgresql:///x"),
        ("postgresql://", [], "prefer", "postgresql:///"),
        ("postgresql://localhost,db:7/x", [("localhost", 5432), ("db", 7)], "verify-full",
         "postgresql://localhost:5432,db:7/x"),
        ("postgresql://localhost.example.com/x", [("localhost.example.com", 5432)], "verify-full",
         "postgresql://localhost.example.com:5432/x"),
        ("postgresql://a/x?host=b&dbname=y", [("b", 5432)], "verify-full", "postgresql://b:5432/y"),
        ("postgresql://127.0.0.1.nip.io/", [("127.0.0.1.nip.io", 5432)], "verify-full",
         "postgresql://127.0.0.1.nip.io:5432/"),
    ],
)  # fmt: skip
def test_where_a_url_leads_and_how_that_is_protected(
    url: str, hosts: list[tuple[str, int]], mode: str, place: str
) -> None:
    address = Address.of(url)
    assert (list(address.hosts), address.sslmode, address.place) == (hosts, mode, place)


def test_names_and_passwords_may_have_any_sign() -> None:
    address = Address.of("postgresql://a%40b:p%3A%2F%40%20%25@db/my%2Fdb")
    assert (address.said["user"], address.password) == ("a@b", "p:/@ %")
    assert address.said["dbname"] == "my/db"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://s3cret@db/x", "begins with postgresql://"),
        ("postgresql://u:s3cret@s3cret@db/x", "%40"),
        ("postgresql://u:s3/cret@db/x", "%2F"),
        ("postgresql://u:s3cret@db:s3cret/x", "a number from 1 to 65535"),
        ("postgresql://db:70000/x", "a number from 1 to 65535"),
        ("postgresql://u:s3#cret@db/x", "%23"),
        ("postgresql://u:s3cret@[db/x", "URL"),
        ("postgresql://u:s3cret@db/x?sslmode=s3cret", "one of disable, allow"),
        ("postgresql://db/x?sslmodee=verify-full", "sslmodee, which is not known"),
        ("postgresql://db/x?s3cret!=1", "a parameter, which is not known"),
        ("postgresql://db/x?channel_binding=require", "channel_binding=require"),
        ("postgresql://a,b/x?port=1,2,3", "as many ports as hosts"),
        ("postgresql://db/x?service=s3cret", "no service of that name"),
        ("postgresql://u:12/s3cret@db/x", "%2F"),
        ("postgresql://u:12?dbname=s3cret@db/x", "%3F"),
        ("postgresql:///x?host=u:s3cret@db", "%40"),
        ("postgresql:///x?host=u:s3cret%40db", "no @ in it"),
        ("postgresql:///?dbname=postgresql://u:s3cret%40db/x", "no URL"),
        ("postgresql:///?dbname=host%3Ddb%20password%3Ds3cret", "no URL or list"),
        ("postgresql://u:s3cret%00@db/x", "U\\+0000"),
        ("postgresql://db%00s3cret/x", "U\\+0000"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_without_a_word_of_it(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Address.of(url)
    assert "s3" not in str(caught.value)
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


_secret = "Zq9Zq9"


@given(st.text("ab:/@?#[]%&=,Zq9"), st.text("ab:/@?#[]%&=,Zq9"))
def test_no_text_about_a_url_has_its_password(before: str, after: str) -> None:
    url = f"postgresql://user:{_secret}{before}@{after}"
    try:
        address = Address.of(url)
    except ValueError as exc:
        said = str(exc)
    else:
        if address.password is None or "Zq9" not in address.password:
            return  # what stands there is a host or a path: no password
        said = f"{address} {address!r} {address.place}".replace(after, "")
    assert _secret not in said


@given(st.text("ab12:/@?#[]%&=,", max_size=8), st.text("ab12:/@?#[]%&=,", max_size=8))
@example("12/", "")
@example("12?dbname=", "")
def test_no_part_of_a_badly_written_password_is_taken_for_a_name(before: str, after: str) -> None:
    url = f"postgresql://user:{before}{_secret}{after}@db.example.com/x"
    try:
        address = Address.of(url)
    except ValueError as exc:
        said = str(exc)
    else:
        said = f"{address} {address!r}"
    assert _secret not in said


def test_the_url_goes_before_the_service_and_that_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    services = tmp_path / "services.conf"
    services.write_text("[books]\nhost=of.service\nuser=ann\npassword=100%s3cret\nport=7\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGHOST", "of.environment")
    monkeypatch.setenv("PGDATABASE", "books")
    monkeypatch.setenv("PGPASSWORD", "other")
    by_environment = Address.of("postgresql://")
    assert by_environment.hosts == (("of.environment", 5432),)
    assert (by_environment.password, by_environment.place) == (
        "other",
        "postgresql://of.environment:5432/books",
    )
    monkeypatch.setenv("PGSERVICE", "books")
    by_service = Address.of("postgresql://")
    assert (by_service.hosts, by_service.password) == ((("of.service", 7),), "100%s3cret")
    by_url = Address.of("postgresql://bob@of.url:9/?service=books")
    assert (by_url.hosts, by_url.said["user"]) == ((("of.url", 9),), "bob")
    for address in (by_service, by_url):
        assert "s3cret" not in f"{address!r} {address}"


def test_a_service_file_is_read_as_libpq_reads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    services = tmp_path / "services.conf"
    services.write_text(
        "# of all\nhost=nowhere\n[DEFAULT]\nuser=eve\n[books]\n  host=db\n"
        "\tpassword=a:b=#;c%(x)s \n\n#port=1\n port = 7\nhost=second\n[books]\nuser=later\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    address = Address.of("postgresql:///x?service=books")
    assert (address.hosts, address.password) == ((("db", 7),), "a:b=#;c%(x)s")
    assert address.place == "postgresql://db:7/x"
    assert "user" not in address.said


@pytest.mark.parametrize("text", ["[a\nb", "host=x", "[s3cret]\ns3cret!=1\n", "[s3cret]\ns3cret\n"])
def test_a_broken_service_file_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    services = tmp_path / "services.conf"
    services.write_text(text)
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    with pytest.raises(ValueError, match=r"services\.conf") as caught:
        Address.of("postgresql://db/x?service=s3cret")
    assert "s3cret" not in str(caught.value)


def test_the_mode_of_the_environment_is_a_word_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert Address.of("postgresql://db/x").sslmode == "disable"
    assert Address.of("postgresql://db/x?sslmode=verify-full").sslmode == "verify-full"
