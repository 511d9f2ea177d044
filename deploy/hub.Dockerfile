# A hub. Build from the top of the repository:  docker build -f deploy/hub.Dockerfile -t wio-hub .
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/wio && /opt/wio/bin/pip install --no-cache-dir ".[hub]"

FROM python:3.12-slim
# The number is fixed so that a volume made by one version belongs to the same user under the next.
RUN groupadd --gid 8765 wio && useradd --uid 8765 --gid wio --no-create-home wio && install -d -o wio -g wio -m 0700 /var/lib/wio-hub
COPY --from=build /opt/wio /opt/wio
ENV PATH=/opt/wio/bin:$PATH PYTHONUNBUFFERED=1 WIO_DATA=/var/lib/wio-hub WIO_HOST=0.0.0.0 WIO_PORT=8000
USER wio
VOLUME /var/lib/wio-hub
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["wio-hub", "doctor", "--running"]
ENTRYPOINT ["wio-hub"]
CMD ["serve"]
