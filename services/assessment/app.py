"""`python -m services.assessment.app api|worker|all|prepare|redrive`"""

from pydantic import SecretStr, field_validator

from services.assessment import api, store
from services.assessment.commands import Seal
from services.assessment.consumers import consumer, timers
from shared.service import Service
from shared.settings import HttpUrl, Settings


class AssessmentSettings(Settings):
    """What assessment needs beyond the common settings."""

    certificate_key: SecretStr
    """32 bytes, URL-safe base64: seals the names printed on certificates."""
    enrollment_internal_url: HttpUrl
    """Where enrollment resolves contacts."""

    @field_validator("certificate_key")
    @classmethod
    def _seals(cls, key: SecretStr) -> SecretStr:
        if not Seal.fits(key.get_secret_value()):
            raise ValueError("not 32 bytes in URL-safe base64")
        return key


service = Service(
    name="assessment",
    description="Module results, change projects, graduation and certificates.",
    routers=[api.router],
    consumers=[consumer],
    timers=timers,
    indexes=store.INDEXES,
    settings=AssessmentSettings,
    neighbours=lambda settings: {"enrollment": settings.enrollment_internal_url},
)

if __name__ == "__main__":
    service.main()
