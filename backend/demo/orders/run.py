"""`tandem demo-orders`: two thousand orders across four databases, with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.demo.commands import Data, Seed, Size, run_until_signalled
from backend.demo.display import Display
from backend.demo.folders import report_path
from backend.demo.run_command import run_in_private, show
from backend.demo.steps import ShopSource
from backend.messages.orders import SagaStyle
from backend.shared.observability.logging import configure_logging
from backend.shared.testing.programs import REPOSITORY

from .report import figures_table, ways_table
from .scenario import ORDERS, OrdersDemo, OrdersOptions

DEFAULT_REPORT = REPOSITORY / ".tandem" / "demo-orders-report.json"
KEPT_LOGS = REPOSITORY / ".tandem" / "demo-orders-logs"


SIZE = 30_000
"""Lines of history: three thousand customers, of whom enough may order."""


Orders = Annotated[int, typer.Option(help="How many orders.", min=1)]
Report = Annotated[
    Path | None,
    typer.Option("--json", help="Where the report goes; default: .tandem/demo-orders-report.json."),
]


def demo_orders(
    *,
    data: Data = None,
    seed: Seed = 1,
    size: Size = None,
    orders: Orders = ORDERS,
    style: Annotated[SagaStyle, typer.Option(help="The form of the sagas.")] = SagaStyle.CHOREOGRAPHED,
    json: Report = None,
) -> None:
    """Place orders from the shop's carts while participants and the broker are killed and the product service moves.

    Exit 0: every saga is over, and money, stock, carts and orders agree. 1: one of these did not hold. 2: it could not be run.
    """
    console = Console()
    path = report_path(json, default=DEFAULT_REPORT)
    source = ShopSource(seed=seed, size=SIZE if size is None and data is None else size, data=data)
    source.check()
    configure_logging("demo", level="CRITICAL")  # what goes wrong is shown, not logged
    options = OrdersOptions(source=source, orders=orders, style=style.value)
    report = run_until_signalled(
        run_in_private(
            "demo-orders",
            lambda folder: OrdersDemo(options, folder=folder, display=Display(console)),
            kept=KEPT_LOGS,
        )
    )
    report.write(path)
    show(
        console,
        report,
        [ways_table(report), figures_table(report)],
        held="every saga is over, and money, stock, carts and orders agree",
        path=path,
        kept=KEPT_LOGS,
    )
    raise typer.Exit(report.exit_code)
