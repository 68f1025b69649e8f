# Penstock as an image. Runs as a numeric non-root user on a read-only root file system:
#
#   docker build -t penstock .
#   docker run --read-only --tmpfs /tmp -v penstock:/data -e OPENAI_API_KEY -p 8080:8080 penstock
#
# Only /data is written to. A container gets as long to drain as the runtime gives it: raise docker's
# --stop-timeout (10 s) or the pod's terminationGracePeriodSeconds to server.bounds.drain.
# For builds that repeat to the byte, pin the base by digest: --build-arg BASE=python:3.13-slim@sha256:…

# The build stage has a C compiler, for the hot path; both must have the same Python.

ARG BASE=python:3.13-slim
ARG BUILD=python:3.13

FROM ${BUILD} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN ["python", "-m", "venv", "/opt/penstock"]
WORKDIR /src
COPY requirements.lock ./
RUN ["/opt/penstock/bin/python", "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "--requirement", "requirements.lock"]
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY plugins ./plugins
COPY gateway ./gateway
RUN ["/opt/penstock/bin/python", "-m", "pip", "install", "--no-deps", "--no-build-isolation", "."]
COPY requirements-compile.lock ./
RUN ["/opt/penstock/bin/python", "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "--target", "/opt/compiler", "--requirement", "requirements-compile.lock"]
ENV PYTHONPATH=/opt/compiler
RUN ["/opt/penstock/bin/penstock", "compile"]

FROM ${BASE}
LABEL org.opencontainers.image.title="Penstock" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/penstock/bin:$PATH
COPY --from=build /opt/penstock /opt/penstock
COPY config/container.toml /etc/penstock/gateway.toml
WORKDIR /data
RUN ["chown", "65532:65532", "/data"]
VOLUME ["/data"]
USER 65532:65532
# Where `docker exec CONTAINER penstock keys add NAME` finds the configuration.
WORKDIR /etc/penstock
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
  CMD ["/opt/penstock/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/healthz', timeout=2)"]
ENTRYPOINT ["/opt/penstock/bin/penstock"]
CMD ["serve", "-c", "/etc/penstock/gateway.toml"]
