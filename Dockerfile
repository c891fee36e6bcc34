# The workers, and everything else of the command line, as an image. Base images are pinned by version; pin them by digest as
# well where yours are mirrored. Python packages are installed from a lock with hashes, from whatever index pip is set to.

ARG PYTHON=3.13.7-slim-bookworm

FROM python:${PYTHON} AS build
COPY deploy/requirements.lock /tmp/requirements.lock
RUN python -m venv /opt/floodwall/venv \
    && /opt/floodwall/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        -r /tmp/requirements.lock

FROM python:${PYTHON} AS worker
# The number, so that Kubernetes can see that it is not root. The folder of compiled kernels is theirs: a volume that is mounted
# there inherits the owner.
RUN groupadd --gid 10001 floodwall \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin floodwall \
    && install -d -o 10001 -g 10001 /var/cache/floodwall
COPY --from=build /opt/floodwall/venv /opt/floodwall/venv
COPY floodwall /opt/floodwall/source/floodwall
COPY broker /opt/floodwall/source/broker
COPY schemas /opt/floodwall/source/schemas
COPY detectors /opt/floodwall/source/detectors
COPY engine /opt/floodwall/source/engine
COPY streams /opt/floodwall/source/streams
COPY replay /opt/floodwall/source/replay
COPY edge /opt/floodwall/source/edge
COPY drills /opt/floodwall/source/drills
# NUMBA_CACHE_DIR: the image's own files are read-only, and kernels depend on the processor they were compiled for.
ENV PATH=/opt/floodwall/venv/bin:$PATH \
    PYTHONPATH=/opt/floodwall/source \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/cache/floodwall
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["python", "-m", "floodwall"]
CMD ["worker", "all"]

# The nftables edge alone needs nft, and the right to administer the network: docker-compose.yml grants that and nothing else.
FROM worker AS edge
USER 0:0
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nftables \
    && rm -rf /var/lib/apt/lists/*
CMD ["edge", "nft"]

# What a build without --target makes: the workers, not as root.
FROM worker
