# langsae's image. What it is for and how to run it: docs/image.md. BuildKit or buildah build it.
#
# The base: Debian 12 with nothing in it, by the digest of its multi-platform index. Python comes
# from Debian, so any Debian 12 will do: CI, which reaches no image, passes one made by debootstrap.
ARG BASE=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

# ---- what runs here, whoever builds: Python, git, a C compiler with Python's headers (Triton
# compiles its launchers when it runs), fonts for every script of languages.py
FROM ${BASE} AS system
# "exact": the versions of container/debian.lock. "newest": those packages, whatever their version.
ARG DEBIAN_PINS=exact
RUN --mount=type=bind,source=container/debian.lock,target=/tmp/debian.lock \
    set -eu; \
    names=$(grep -v '^#' /tmp/debian.lock); \
    [ "$DEBIAN_PINS" = exact ] || names=$(echo "$names" | cut -d= -f1); \
    apt-get update; \
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $names \
        || { echo "a version that Debian no longer has? See docs/image.md, Pins" >&2; exit 1; }; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/cache/debconf/*-old; \
    dpkg-query --show --showformat '${Package}=${Version}\n' > /usr/share/debian.packages

# ---- the Python packages: a stage of its own, so that uv and wheels stay out of the image
FROM system AS packages
# Where to look for wheels besides the index: with FIND_LINKS=/build, in the context's wheels/ (a
# CPU build of torch there makes the CPU image).
ARG FIND_LINKS=
# A wildcard beside a file that is there: wheels/ may be absent.
COPY requirements.lock requirements-cuda.lock pyproject.toml wheels* /build/
# The secret `certificates`, if given, is the bundle that a proxy of the builder's network needs.
RUN --mount=type=secret,id=certificates,target=/run/certificates.pem \
    --mount=type=cache,target=/root/.cache \
    set -eu; \
    if [ -s /run/certificates.pem ]; then \
        export SSL_CERT_FILE=/run/certificates.pem PIP_CERT=/run/certificates.pem; \
    fi; \
    python3 -m venv /opt/uv; \
    /opt/uv/bin/pip install --quiet --disable-pip-version-check \
        "$(grep '^uv==' /build/requirements.lock)"; \
    python3 -m venv /opt/venv; \
    UV_LINK_MODE=copy /opt/uv/bin/uv pip install --python /opt/venv/bin/python \
        ${FIND_LINKS:+--find-links "$FIND_LINKS"} \
        --constraints /build/requirements.lock --constraints /build/requirements-cuda.lock \
        --build-constraints /build/requirements.lock --requirements /build/pyproject.toml; \
    cd /opt/venv/lib/python3*/site-packages; \
    rm -rf torch/test pandas/tests pyarrow/tests ray/jars; \
    /opt/venv/bin/python -m compileall -q -q -j 0 . || true
# (Tests and Java left out: 200 MB. Bytecode: no user here can write it, and each start would wait.)

# ---- the project's files, without what only the build needs
FROM system AS project
COPY . /langsae
# It has no git repository here; a clone that is mounted in its place says for itself.
RUN set -eu; \
    cd /langsae; \
    rm -rf container wheels; \
    mkdir -p .dvc/tmp; \
    printf '[core]\n    no_scm = true\n' > .dvc/config.local; \
    python3 -m compileall -q src replications

# ---- the image
FROM system
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/langsae USER=langsae LANG=C.UTF-8 \
    HF_HOME=/cache/huggingface TRITON_CACHE_DIR=/cache/triton NUMBA_CACHE_DIR=/cache/numba \
    MPLCONFIGDIR=/home/langsae/matplotlib \
    HF_HUB_DISABLE_TELEMETRY=1 DVC_NO_ANALYTICS=1 \
    OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
# Folders that any user may write, for `docker run --user`: home and what /cache holds. Git refuses
# a project that belongs to another user unless the system's (not the project's) configuration
# trusts its folder; libgit2, which DVC has, asks the same.
RUN set -eu; \
    useradd --uid 1000 --user-group --home-dir /home/langsae --no-create-home langsae; \
    install -d -m 1777 -o langsae -g langsae /home/langsae /home/langsae/matplotlib \
        /cache /cache/dvc /cache/huggingface; \
    git config --system --add safe.directory /langsae; \
    mkdir -p /etc/xdg/dvc; \
    printf '[core]\n    analytics = false\n[cache]\n    dir = /cache/dvc\n' > /etc/xdg/dvc/config
COPY --from=packages /opt/venv /opt/venv
COPY container/entry /usr/local/bin/langsae-entry
COPY --from=project --chown=1000:1000 /langsae /langsae
RUN set -eu; \
    pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
        --no-cache-dir --editable /langsae; \
    rm -rf /langsae/*.egg-info /langsae/src/*.egg-info; \
    python -c 'import matplotlib.font_manager'; \
    chmod -R a+rwX /home/langsae/matplotlib; \
    chmod 755 /usr/local/bin/langsae-entry
ARG REVISION=unknown
LABEL org.opencontainers.image.title=langsae \
      org.opencontainers.image.description="How sparse-autoencoder features behave across languages" \
      org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.revision=${REVISION}
# What results say they were made by, where there is no git repository to ask.
ENV LANGSAE_REVISION=${REVISION}
USER 1000:1000
WORKDIR /langsae
VOLUME ["/cache"]
HEALTHCHECK --interval=10m --timeout=2m --start-period=2m --retries=2 CMD ["langsae", "doctor"]
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/langsae-entry"]
