"""`python -m services.enrollment.app api|worker|all|prepare|redrive`"""

from services.enrollment import api, store
from shared.service import Service

service = Service(
    name="enrollment",
    description="Agencies, people, cohorts, nominations and seats.",
    routers=[api.router],
    internal_routers=[api.internal],
    indexes=store.INDEXES,
)

if __name__ == "__main__":
    service.main()
