# An agent. Build from the top of the repository:  docker build -f deploy/agent.Dockerfile -t wio-agent .
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/wio && /opt/wio/bin/pip install --no-cache-dir ".[agent]"

FROM python:3.12-slim
RUN groupadd --gid 8766 wio && useradd --uid 8766 --gid wio --no-create-home wio && install -d -o wio -g wio -m 0700 /var/lib/wio-agent
COPY --from=build /opt/wio /opt/wio
ENV PATH=/opt/wio/bin:$PATH PYTHONUNBUFFERED=1
USER wio
VOLUME /var/lib/wio-agent
ENTRYPOINT ["wio-agent"]
CMD ["run"]
