# eventflow as an image: exactly the locked packages, run by a user without rights.
FROM python:3.13-slim AS build
WORKDIR /build
COPY tools/requirements-uv.txt requirements-image.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-uv.txt \
    && uv venv --python /usr/local/bin/python /opt/eventflow \
    && uv pip sync --no-cache --python /opt/eventflow/bin/python --require-hashes requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY eventflow eventflow
COPY connectors connectors
RUN uv pip install --no-cache --python /opt/eventflow/bin/python --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home eventflow \
    && install --directory --owner=eventflow /data
COPY --from=build /opt/eventflow /opt/eventflow
ENV PATH=/opt/eventflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EVENTFLOW_DATA=/data \
    EVENTFLOW_HTTP=0.0.0.0:8642 \
    EVENTFLOW_LOG=json
USER eventflow
WORKDIR /home/eventflow
EXPOSE 8642
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8642/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["eventflow"]
CMD ["serve"]
