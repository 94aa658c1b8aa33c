"""`wyloop api`: the web server, with the dashboard under / and OPTIMADE under /optimade."""

from typing import Annotated

import typer

from wyloop.platform.cli.output import current_settings

app = typer.Typer(no_args_is_help=True, help="The web server: dashboard, OPTIMADE and API.")


@app.callback()
def api() -> None:
    """The web server: dashboard, OPTIMADE and API."""


@app.command("serve")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default from the settings.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; default from the settings.")] = None,
) -> None:
    """Serve the database over HTTP until stopped.

    The dashboard stands under /, OPTIMADE under /optimade; both follow the database. Requests only read, unless
    WYLOOP_PLATFORM_API_TOKEN is set.
    """
    from wyloop.platform.api.app import OPTIMADE_PATH, create_app
    from wyloop.platform.api.entries import Limits
    from wyloop.platform.api.server import serve as run
    from wyloop.platform.session import database_uri

    settings = current_settings()
    platform = settings.platform
    limits = Limits(max_page_limit=platform.api_max_page_limit, query_time_ms=platform.api_query_time_ms)
    with database_uri(settings) as uri:
        application = create_app(
            settings.with_uri(uri).stores,
            token=platform.api_token,
            limits=limits,
            refresh_seconds=platform.api_refresh_seconds,
            launchpad_database=settings.flows.launchpad_database,
            prefect_url=platform.prefect_url,
        )
        run(
            application,
            host or platform.api_host,
            platform.api_port if port is None else port,
            on_listening=lambda url: typer.echo(f"OPTIMADE at {url}{OPTIMADE_PATH}/v1", err=True),
        )
