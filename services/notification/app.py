"""`python -m services.notification.app api|worker|all|prepare|redrive`"""

from typing import Literal, Self

from pydantic import SecretStr, model_validator

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
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    """Whether it is spoken to in the clear, by TLS after the greeting, or by TLS from the first byte."""
    smtp_username: str | None = None
    """As whom we sign in there; without, not at all."""
    smtp_password: SecretStr | None = None
    """The password of that user."""
    mail_from: str
    """The address from which we write."""
    enrollment_internal_url: HttpUrl
    """Where enrollment resolves contacts."""
    credentials_dir: str = "var/credentials"
    """Where `prepare --agency` leaves an agency's password."""

    @model_validator(mode="after")
    def _signs_in_safely(self) -> Self:
        if self.smtp_username and not self.smtp_password:
            raise ValueError("SMTP_PASSWORD: is needed with SMTP_USERNAME")
        if self.smtp_username and self.smtp_security == "none":
            raise ValueError("SMTP_SECURITY: a password does not go in the clear")
        return self


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
