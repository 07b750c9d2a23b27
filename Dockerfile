# docker build -t modelarts-exporter .
# docker run --read-only --cap-drop=all -p 127.0.0.1:9978:9978 modelarts-exporter demo --web.listen-address=0.0.0.0:9978
# The demo listens on 127.0.0.1 by default, which cannot be reached from outside the container.
#
# The tag fixes the minor version of Python and the Debian release, and gets their security fixes.
# For reproducible builds, pin the digest: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The environment with pip and the build tool stays in this stage; the other one, without pip, is shipped.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv /opt/build \
 && python3 -m venv --without-pip /opt/modelarts-exporter \
 && /opt/build/bin/pip install --require-hashes -r requirements-build.lock \
 && /opt/build/bin/pip --python /opt/modelarts-exporter/bin/python install --only-binary=:all: --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY modelarts_exporter modelarts_exporter
ARG REVISION=unknown
# Compiled files are not checked against the sources (unchecked-hash): not every builder keeps file times.
RUN sed -i "s/[$]Format:%H[$]/${REVISION}/" exporter/__init__.py \
 && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/build/bin/pip --python /opt/modelarts-exporter/bin/python install --no-deps --no-index /dist/*.whl \
 && /opt/modelarts-exporter/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/modelarts-exporter/lib


FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
# The time of the commit, as of "git log -1 --format=%cI".
ARG CREATED=unknown
LABEL org.opencontainers.image.title="modelarts-exporter" \
      org.opencontainers.image.description="Prometheus exporter for training jobs on Huawei Cloud ModelArts" \
      org.opencontainers.image.url="https://github.com/modelarts-exporter/modelarts-exporter" \
      org.opencontainers.image.source="https://github.com/modelarts-exporter/modelarts-exporter" \
      org.opencontainers.image.documentation="https://github.com/modelarts-exporter/modelarts-exporter/blob/main/docs/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /opt/modelarts-exporter /opt/modelarts-exporter
ENV PATH=/opt/modelarts-exporter/bin:${PATH} PYTHONUNBUFFERED=1
# The base image has no compiled standard library. This run compiles the part that the exporter and the
# health check use, and checks that the exporter starts. After this, no compiled files are written.
RUN modelarts-exporter --help > /dev/null && python3 -c "import exporter.app.exporter, http.client"
# The exporter looks for .huaweicloud/credentials in HOME, where it can be mounted.
ENV PYTHONDONTWRITEBYTECODE=1 HOME=/etc/modelarts-exporter
# Numeric, so that Kubernetes can verify that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 9978
# For the default web.listen-address; with a different one, or with TLS, use --health-cmd or --no-healthcheck.
# http.client ignores the proxy settings of the environment.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
  CMD ["python3", "-ISc", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 9978, timeout=4); c.request('GET', '/-/healthy'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["modelarts-exporter"]
CMD ["serve"]
