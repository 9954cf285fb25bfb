# An image with distinit, its tests and everything that `make demo` needs.
#
#   docker build -t distinit .
#   docker run --rm --shm-size 2g -v "$PWD/work:/app/work" distinit              # the demo
#   docker run --rm --shm-size 2g distinit make test                             # all tests
#   docker run --rm --gpus all --shm-size 8g -v /data:/data distinit distinit doctor
FROM python:3.12-slim

RUN apt-get update \
 && apt-get install --yes --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 distinit \
 && install --directory --owner distinit /app

USER distinit
WORKDIR /app

# The dependencies, in a layer of their own: a change of the code does not install them again.
COPY --chown=distinit requirements-dev.lock ./
RUN python3 -m venv .venv \
 && .venv/bin/python -m pip install --quiet --no-cache-dir 'uv>=0.5' \
 && VIRTUAL_ENV=.venv .venv/bin/uv pip sync --quiet --no-cache --compile-bytecode --require-hashes requirements-dev.lock

COPY --chown=distinit . .
RUN make setup

ENV PATH=/app/.venv/bin:$PATH
CMD ["make", "demo"]
