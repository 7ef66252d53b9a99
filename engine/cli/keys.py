"""`sigmagraph keys`: the API keys of a server. A key is told once, when it is made; only its digest is kept."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from engine.cli.workspace import Home, workspace

if TYPE_CHECKING:
    from engine.jobs.accounts import Accounts

__all__ = ["keys"]

T = TypeVar("T")
Database = Annotated[
    str | None,
    typer.Option(envvar="SIGMAGRAPH_DATABASE", help="SQLAlchemy URL.", show_default="SQLite in HOME/user"),
]

keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; for people to read.")],
    scopes: Annotated[str, typer.Option(help="Some of read, submit and admin.")] = "read,submit",
    database: Database = None,
    home: Home = None,
) -> None:
    """Make a key and print it. It is not shown again."""
    from engine.cli.console import out, remark

    wanted = [each.strip() for each in scopes.split(",") if each.strip()]
    secret, account = _with_accounts(database, home, lambda accounts: accounts.create(name, wanted))
    remark(f"key of {account.name} ({account.id}), scopes {', '.join(sorted(account.scopes))}:")
    out().print(secret, markup=False, soft_wrap=True)


@keys.command("list")
def listing(database: Database = None, home: Home = None) -> None:
    """List the keys by their first letters."""
    from rich.table import Table

    from engine.cli.console import out

    table = Table("id", "name", "key", "scopes", "made", "revoked", box=None, pad_edge=False)
    for each in _with_accounts(database, home, lambda accounts: accounts.list()):
        scopes = ", ".join(sorted(each.scopes))
        table.add_row(each.id, each.name, f"{each.hint}...", scopes, _day(each.created_at), _day(each.revoked_at))
    out().print(table)


@keys.command("revoke")
def revoke(
    account_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `keys list` shows.")],
    database: Database = None,
    home: Home = None,
) -> None:
    """Withdraw a key for good."""
    from engine.cli.console import remark

    account = _with_accounts(database, home, lambda accounts: accounts.revoke(account_id))
    remark(f"the key of {account.name} opens nothing any more")


def _with_accounts(database: str | None, home: Path | None, work: "Callable[[Accounts], Awaitable[T]]") -> T:
    """Do something with the accounts of a server that is not running: each database has one user at a time."""
    import asyncio

    from engine.jobs.accounts import Accounts
    from engine.jobs.settings import StoreSettings
    from engine.jobs.store import Store
    from engine.writing import make_folder

    folder = workspace(home).home.resolve() / "user"
    if database is None:
        make_folder(folder)

    async def opened() -> T:
        store = Store(StoreSettings(database or f"sqlite:///{folder / 'jobs.sqlite'}"))
        await store.open()
        try:
            return await work(Accounts(store))
        finally:
            await store.close()

    return asyncio.run(opened())


def _day(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).date().isoformat()
