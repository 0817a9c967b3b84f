"""`python -m services.scheduling.app api|worker|all|prepare|redrive`"""

from services.scheduling import api, store
from services.scheduling.consumers import consumer
from shared.service import Service

service = Service(
    name="scheduling",
    description="Timetables, trainers, rooms, learning groups and attendance.",
    routers=[api.router],
    consumers=[consumer],
    indexes=store.INDEXES,
)

if __name__ == "__main__":
    service.main()
