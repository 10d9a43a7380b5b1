# Airflow with Retain's DAGs and its tab; no torch, no DVC, no Evidently. Built by containers/build, see README.md there.
#   BASE  Debian with Python 3.11, by digest: docker.io/library/python:3.11-slim-bookworm@sha256:...
# Folders and entry point are those that Airflow's official chart expects of its image; so is its user, 50000:0, beside ours.
ARG BASE

# Folders of wheels that the machine lends: `--build-context lent=FOLDER`. Mounted for a command, never copied.
FROM scratch AS lent

FROM ${BASE} AS base
# git for the light tasks; tini as PID 1 hands signals on and reaps orphans. No setuid file, no pip, no log of the making.
# An empty airflow.cfg: without one Airflow writes its own, which a read-only root refuses.
# Some bases come without the bytecode of Python's own library, and a read-only root could not keep it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/local/bin/pip* /usr/bin/pip* \
        /usr/local/lib/python3*/site-packages/pip* /usr/lib/python3/dist-packages/pip* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -x '/(tests?|site-packages|dist-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && echo 'airflow:x:65532:65532::/home/airflow:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'airflow-chart:x:50000:0::/home/airflow:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'airflow:x:65532:' >> /etc/group \
    && mkdir -p /opt/airflow/logs /home/airflow \
    && touch /opt/airflow/airflow.cfg \
    && chown -R 65532:0 /opt/airflow /home/airflow && chmod -R g=u /opt/airflow /home/airflow

# What is wanted, apart from the rest of pyproject.toml: a change of the rest keeps the large layer.
FROM ${BASE} AS wanted
COPY pyproject.toml /
RUN python3 -c 'import tomllib; p = tomllib.load(open("/pyproject.toml", "rb"))["project"]; \
    print(*p["dependencies"], *p["optional-dependencies"]["airflow"], sep="\n")' > /requirements.txt

FROM ${BASE} AS dependencies
ARG UV_VERSION=0.13.9
# Bytecode that no file time can spoil: images rewrite times, and every task would compile Airflow anew.
ENV UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH PATH=/opt/uv/bin:$PATH
COPY containers/with-settings /opt/uv/bin/
RUN --mount=type=secret,id=settings,target=/run/secrets/settings --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=bind,from=lent,target=/lent \
    python3 -m venv /opt/uv && with-settings /opt/uv/bin/pip install --quiet --no-cache-dir uv==${UV_VERSION}
WORKDIR /src
COPY constraints.txt ./
COPY --from=wanted /requirements.txt ./
RUN --mount=type=secret,id=settings,target=/run/secrets/settings --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=bind,from=lent,target=/lent --mount=type=cache,target=/root/.cache/uv \
    uv venv --quiet --python "$(command -v python3)" /opt/venv \
    && with-settings uv pip install --quiet --compile-bytecode --python /opt/venv \
        -c constraints.txt -r requirements.txt \
    && cd /opt/venv/lib/python3*/site-packages \
    && echo /opt/retain > retain.pth

FROM dependencies AS application
COPY README.md LICENSE pyproject.toml dvc.yaml params.yaml ./
COPY cl_steps cl_steps
COPY dags dags
RUN --mount=type=secret,id=settings,target=/run/secrets/settings --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=bind,from=lent,target=/lent --mount=type=cache,target=/root/.cache/uv \
    with-settings uv pip install --quiet --compile-bytecode --python /opt/venv --no-deps --target /opt/retain . \
    && rm -f /opt/retain/.lock /opt/retain/*.dist-info/uv_*.json \
    && /opt/venv/bin/python -c 'from importlib.util import find_spec; \
    heavy = [name for name in ("torch", "diffusers", "transformers", "dvc", "evidently") if find_spec(name)]; \
    assert not heavy, f"the scheduler must not hold {heavy}"'

FROM base
ENV PATH=/opt/retain/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    HOME=/home/airflow \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/retain/cl_steps/orchestration/dag_files \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    GIT_TERMINAL_PROMPT=0 \
    PYTHONUNBUFFERED=1
COPY containers/airflow-entrypoint /entrypoint
COPY containers/clean-logs /clean-logs
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=application /opt/retain /opt/retain
WORKDIR /opt/airflow
USER 65532:65532
ENTRYPOINT ["/usr/bin/tini", "--", "/entrypoint"]
CMD ["version"]
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="retain-airflow" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
