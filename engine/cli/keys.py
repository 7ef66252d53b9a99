"""`sigmagraph keys`: who may call the server, and with what credits. Works beside a running server or without one."""

import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmagraph.engine.cli.options import AsJson, Home, workspace
from sigmagraph.engine.units import CREDIT

if TYPE_CHECKING:
    from sigmagraph.engine.jobs.billing.accounts import Account, Accounts

__all__ = ["keys"]

keys = typer.Typer(help="Make, list and withdraw keys; give credits.", no_args_is_help=True)
Database = Annotated[
    str | None,
    typer.Option(envvar="SIGMAGRAPH_DATABASE", help="SQLAlchemy URL.", show_default="SQLite in HOME/user"),
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `sigmagraph keys list` shows it.")]


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    credits: Annotated[float, typer.Option(help="Credits to begin with.")] = 0.0,
    scopes: Annotated[str, typer.Option(help="Some of read, submit and admin.")] = "read,submit",
    endpoint: Annotated[list[str] | None, typer.Option(help="A slug it may call.", show_default="all")] = None,
    spend_limit: Annotated[float | None, typer.Option(help="Credits it may spend in all.")] = None,
    requests_per_minute: Annotated[float | None, typer.Option(help="Its own rate limit.")] = None,
    as_json: AsJson = False,
    database: Database = None,
    home: Home = None,
) -> None:
    """Make a key and print it: the only time that it is shown."""
    from sigmagraph.engine.cli.console import out, remark, write_json

    async def work(accounts: "Accounts") -> "tuple[str, Account]":
        return await accounts.create(
            name,
            [scope.strip() for scope in scopes.split(",") if scope.strip()],
            endpoints=endpoint or None,
            credits=_micro(credits),
            spend_limit=_micro(spend_limit) if spend_limit is not None else None,
            requests_per_minute=requests_per_minute,
        )

    secret, account = _with_accounts(home, database, work)
    if as_json:
        write_json({"key": secret, **account.described()})
        return
    out().print(secret, markup=False)
    remark(f"key {account.id} of {account.name}; it is kept as a hash only, so note it now")


@keys.command("list")
def listing(as_json: AsJson = False, database: Database = None, home: Home = None) -> None:
    """Every key with its credits."""
    from sigmagraph.engine.cli.console import columns, out, write_json

    async def work(accounts: "Accounts") -> "list[Account]":
        return list(await accounts.list())

    found = _with_accounts(home, database, work)
    if as_json:
        write_json([account.described() for account in found])
        return
    table = columns("id", "name", "key", "state", "credits", "held", "spent", "may", whole=7)
    for account in found:
        amounts = (f"{amount / CREDIT:g}" for amount in (account.credits, account.held, account.spent))
        state = "revoked" if account.revoked_at is not None else "works"
        called = ", ".join(sorted(account.endpoints)) if account.endpoints is not None else "all endpoints"
        may = f"{', '.join(sorted(account.scopes))}; {called}"
        table.add_row(account.id, account.name, f"{account.hint}…", state, *amounts, may)
    out().print(table)


@keys.command("revoke")
def revoke(key: KeyId, as_json: AsJson = False, database: Database = None, home: Home = None) -> None:
    """Withdraw a key: it opens nothing any more."""
    from sigmagraph.engine.cli.console import remark, write_json

    account = _with_accounts(home, database, lambda accounts: accounts.revoke(key))
    if as_json:
        write_json(account.described())
        return
    remark(f"key {account.id} of {account.name} is revoked")


@keys.command("credit")
def credit(
    key: KeyId,
    amount: Annotated[float, typer.Argument(help="Credits to add; less than 0 takes some away.")],
    reason: Annotated[str, typer.Option(help="For the ledger.")] = "grant",
    as_json: AsJson = False,
    database: Database = None,
    home: Home = None,
) -> None:
    """Give credits, and print the balance."""
    from sigmagraph.engine.cli.console import out, write_json

    account = _with_accounts(home, database, lambda accounts: accounts.credit(key, _micro(amount), reason))
    if as_json:
        write_json(account.described())
    else:
        out().print(f"{account.credits / CREDIT:g}", markup=False)


def _micro(credits: float) -> int:
    """Credits as whole millionths; a number that is none is refused."""
    from sigmagraph.engine.errors import BadValue

    if not math.isfinite(credits):
        raise BadValue("credits", credits, "a finite number")
    return round(credits * CREDIT)


def _with_accounts(home: Path | None, database: str | None, work: "Callable[[Accounts], Awaitable[Any]]") -> Any:
    """What `work` gives, with the accounts of the server's database."""
    import asyncio

    from sigmagraph.engine.jobs.billing.accounts import Accounts
    from sigmagraph.engine.jobs.settings import StoreSettings
    from sigmagraph.engine.jobs.store.job_store import JobStore
    from sigmagraph.engine.writing import make_folder

    place = workspace(home).home.resolve()
    url = database or f"sqlite:///{make_folder(place / 'user') / 'jobs.sqlite'}"

    async def run() -> Any:
        store = JobStore(StoreSettings(url=url, is_shared=True))
        await store.open()
        try:
            return await work(Accounts(store))
        finally:
            await store.close()

    return asyncio.run(run())
