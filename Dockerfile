# ai-mux in a container: docs/how-to/containers.md, docs/how-to/kubernetes.md.
#
# Rule 1: what is installed is what requirements.lock names, by hash, and as wheels: nothing is
# compiled here, and no package runs a program of its own to be installed.
#
# Rule 2: no layer holds a secret. .dockerignore lists what may come in at all.
#
# Rule 3: at run time nothing is written but below /var/lib/ai-mux, by any user that owns that.

# To hold it to one image for good: --build-arg PYTHON=python:3.13-slim@sha256:…
ARG PYTHON=python:3.13-slim


FROM ${PYTHON} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# First what seldom changes: the layer of the dependencies is kept until their lock is another.
COPY requirements.lock .
RUN python -m venv --without-pip /opt/ai-mux \
 && pip --python /opt/ai-mux install --require-hashes --only-binary :all: --no-compile -r requirements.lock
COPY . .
# The build backend and what it brought have done their work. Byte code whose source is never looked
# at again is read faster, and does not depend on times that a copy may change (PEP 552).
RUN pip --python /opt/ai-mux install --no-deps --no-build-isolation --no-compile . \
 && pip --python /opt/ai-mux uninstall --yes \
        hatchling packaging pathspec pluggy tomlkit trove-classifiers \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/ai-mux/lib


FROM ${PYTHON}
ARG REVISION=""
LABEL org.opencontainers.image.title="ai-mux" \
      org.opencontainers.image.description="Reach AI subscriptions with ordinary tokens" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
# Python's images come without byte code, and what cannot be written is compiled anew at every
# start and every health check. Tests, windows and installers are not run here.
RUN python -m compileall -q -f --invalidation-mode unchecked-hash \
        -x '/(test|idlelib|tkinter|turtledemo|ensurepip|lib2to3|site-packages)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=builder /opt/ai-mux /opt/ai-mux
COPY packaging/container/healthcheck.py /opt/ai-mux/healthcheck.py
# Who mounts a new volume here gets it with this owner. It is no VOLUME: that would give a container
# without a mount one of its own, and a login renewed in there would vanish with the container.
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/ai-mux
# A home for ~, which only a configuration without state_dir uses.
ENV PATH=/opt/ai-mux/bin:$PATH HOME=/var/lib/ai-mux PYTHONDONTWRITEBYTECODE=1
# By number, so that runAsNonRoot can see that it is not root's. Any other number works as well.
USER 10001:10001
WORKDIR /var/lib/ai-mux
EXPOSE 8080
# A stop takes as long as a renewal that is in flight, up to 60 s: give it 90.
STOPSIGNAL SIGTERM
# The first check comes after one interval. --start-interval would bring it sooner, but the engines that
# Debian 12 has (Docker 20.10, Podman 4.3) cannot read a Dockerfile that has it.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "/opt/ai-mux/healthcheck.py"]
# A list, so that no shell is in between and keeps the signal to itself.
ENTRYPOINT ["ai-mux"]
CMD ["--config", "/etc/ai-mux/config.yaml"]
