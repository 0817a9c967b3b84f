"""`python -m services.notification.app api|worker|all|prepare|redrive`"""

from services.notification import api, feed, store
from services.notification.consumers import consumer
from services.notification.sender import send_messages
from shared.mongo import Database
from shared.service import ForwardLedger, Service
from shared.settings import HttpUrl, Port, Settings


class NotificationSettings(Settings):
    """What notification needs beyond the common settings."""

    smtp_host: str = "127.0.0.1"
    """The mail server that takes our mail."""
    smtp_port: Port = 25
    """Its port."""
    mail_from: str
    """The address from which we write."""
    enrollment_internal_url: HttpUrl
    """Where enrollment resolves contacts."""
    credentials_dir: str = "var/credentials"
    """Where `prepare --agency` leaves an agency's password."""


async def _provision(settings: NotificationSettings, database: Database, code: str) -> None:
    from services.notification.provision import provision  # the administrator's client; only `prepare` pays for it

    await provision(settings, database, code)


service = Service(
    name="notification",
    description="Messages, the in-app inbox, and the agencies' feeds.",
    routers=[api.router],
    consumers=[consumer, feed.consumer],
    indexes=store.INDEXES,
    settings=NotificationSettings,
    loops=[send_messages],
    neighbours=lambda settings: {
        "mail server": f"smtp://{settings.smtp_host}:{settings.smtp_port}",
        "enrollment": settings.enrollment_internal_url,
    },
    writes_prefix="training.agency.",
    ledger=ForwardLedger(feed.Ledger.collection, feed.ledger_id),
    prepare_agency=_provision,
)

if __name__ == "__main__":
    service.main()
