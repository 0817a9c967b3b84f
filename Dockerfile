# One image for every role of every service: `prepare`, `api`, `worker`, `redrive`; for `ops.init`, `shared.ops`, `demo`.
# Its target `solver` adds what looks for better timetables: numba, OR-Tools and the kernel, compiled.
FROM python:3.13-slim AS libraries
WORKDIR /build
COPY requirements/runtime.txt .
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --only-binary :all: --require-hashes -r runtime.txt \
 && /opt/venv/bin/pip uninstall --yes pip --quiet \
 && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM python:3.13-slim AS services
# A number of its own, which neighbours' containers take as a further group to read what is meant for them.
RUN groupadd --gid 10001 training && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin training \
 && for place in secrets clock credentials backup reports; do install -d -o 10001 -g 10001 -m 750 /$place; done \
 && for name in kept admin operator play kafka mongo gateway issuer enrollment scheduling assessment notification; do \
      install -d -o 10001 -g 10001 -m 750 /secrets/$name; done
COPY --from=libraries /opt/venv /opt/venv
WORKDIR /app
COPY reference reference
COPY scenarios scenarios
COPY shared shared
COPY services services
COPY stack stack
COPY demo demo
COPY ops ops
RUN python -m compileall -q shared services stack demo ops
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["python", "-m"]

FROM python:3.13-slim AS engine
WORKDIR /build
COPY requirements/solver.txt .
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --only-binary :all: --require-hashes -r solver.txt \
 && /opt/venv/bin/pip uninstall --yes pip --quiet \
 && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM services AS solver
USER root
COPY --from=engine /opt/venv /opt/venv
RUN install -d -o 10001 -g 10001 -m 750 /compiled
ENV NUMBA_CACHE_DIR=/compiled
USER 10001:10001
RUN python -m services.scheduling.solver cohorts --cohorts 1 --seconds 0.5 --seeds 1

FROM services
