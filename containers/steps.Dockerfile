# The steps: `retain` with torch, DVC and Evidently, for a CPU or for CUDA. Built by containers/build, see README.md there.
#   BASE           Debian with Python 3.11, by digest: docker.io/library/python:3.11-slim-bookworm@sha256:...
#   TORCH_BACKEND  which build of torch: cpu, cu130, ... from PyTorch's index; lent: from the machine's own wheels;
#                  index: as PyPI, or the index that the machine is told, has it
ARG BASE

# Folders of wheels that the machine lends: `--build-context lent=FOLDER`. Mounted for a command, never copied.
FROM scratch AS lent

FROM ${BASE} AS base
# git for workspaces; tini as PID 1 hands signals on and reaps orphans. No setuid file, no pip, no log of the making.
# Some bases come without the bytecode of Python's own library, and a read-only root could not keep it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/local/bin/pip* /usr/bin/pip* \
        /usr/local/lib/python3*/site-packages/pip* /usr/lib/python3/dist-packages/pip* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -x '/(tests?|site-packages|dist-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && echo 'retain:x:65532:65532::/scratch/home:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'retain:x:65532:' >> /etc/group \
    && mkdir -m 0755 /scratch && chown 65532:65532 /scratch

# What is wanted, apart from the rest of pyproject.toml: a change of the rest keeps the large layer.
FROM ${BASE} AS wanted
COPY pyproject.toml /
RUN python3 -c 'import tomllib; p = tomllib.load(open("/pyproject.toml", "rb"))["project"]; \
    more = p["optional-dependencies"]; \
    print(*p["dependencies"], *more["steps"], *more["quantised"], sep="\n")' > /requirements.txt

FROM ${BASE} AS dependencies
ARG UV_VERSION=0.13.9
# Bytecode that no file time can spoil: images rewrite times, and a step would compile its libraries anew, 10 s each.
ENV UV_LINK_MODE=copy PYC_INVALIDATION_MODE=UNCHECKED_HASH PATH=/opt/uv/bin:$PATH
COPY containers/with-settings /opt/uv/bin/
RUN --mount=type=secret,id=settings,target=/run/secrets/settings --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=bind,from=lent,target=/lent \
    python3 -m venv /opt/uv && with-settings /opt/uv/bin/pip install --quiet --no-cache-dir uv==${UV_VERSION}
WORKDIR /src
COPY constraints.txt ./
COPY --from=wanted /requirements.txt ./
ARG TORCH_BACKEND=cpu
RUN --mount=type=secret,id=settings,target=/run/secrets/settings --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=bind,from=lent,target=/lent --mount=type=cache,target=/root/.cache/uv \
    uv venv --quiet --python "$(command -v python3)" /opt/venv \
    && with-settings uv pip install --quiet --compile-bytecode --python /opt/venv \
        $(case ${TORCH_BACKEND} in lent | index) ;; *) echo --torch-backend=${TORCH_BACKEND} ;; esac) -c constraints.txt -r requirements.txt \
    && cd /opt/venv/lib/python3*/site-packages \
    && echo /opt/retain > retain.pth \
    && rm -rf torch/include torch/share torch/test torch/bin/protoc* pyarrow/include pyarrow/src pandas/tests \
    && find matplotlib mpmath networkx numpy pyarrow scipy sklearn statsmodels sympy \
        -type d -name tests -prune -exec rm -rf {} +

FROM dependencies AS application
COPY README.md LICENSE pyproject.toml dvc.yaml params.yaml ./
COPY cl_steps cl_steps
COPY dags dags
RUN --mount=type=secret,id=settings,target=/run/secrets/settings --mount=type=secret,id=ca,target=/run/secrets/ca \
    --mount=type=bind,from=lent,target=/lent --mount=type=cache,target=/root/.cache/uv \
    with-settings uv pip install --quiet --compile-bytecode --python /opt/venv --no-deps --target /opt/retain . \
    && rm -f /opt/retain/.lock /opt/retain/*.dist-info/uv_*.json

FROM base
ENV PATH=/opt/retain/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    HOME=/scratch/home \
    TMPDIR=/scratch/tmp \
    XDG_CACHE_HOME=/scratch/cache \
    HF_HOME=/scratch/hf \
    DVC_SITE_CACHE_DIR=/scratch/dvc \
    DVC_GLOBAL_CONFIG_DIR=/scratch/dvc-config \
    MPLCONFIGDIR=/scratch/mpl \
    DVC_NO_ANALYTICS=1 \
    DO_NOT_TRACK=1 \
    GIT_TERMINAL_PROMPT=0 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY containers/entrypoint /usr/local/bin/entrypoint
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=application /opt/retain /opt/retain
WORKDIR /scratch
USER 65532:65532
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/entrypoint"]
CMD ["--help"]
ARG BASE
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="retain-steps" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
