"""`python -m services.scheduling.app api|worker|solver|all|prepare|redrive`"""

from services.scheduling import api, store
from services.scheduling.consumers import consumer
from shared.service import Context, Service


async def solver(context: Context) -> None:
    """Look for better timetables, where that was asked for."""
    from services.scheduling.solving import solve_searches  # numba and OR-Tools: no other process loads them

    await solve_searches(context)


service = Service(
    name="scheduling",
    description="Timetables, trainers, rooms, learning groups and attendance.",
    routers=[api.router],
    consumers=[consumer],
    indexes=store.INDEXES,
    further={"solver": solver},
)

if __name__ == "__main__":
    service.main()
