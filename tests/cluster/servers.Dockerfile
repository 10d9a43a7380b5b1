# The servers of the cluster tests (tests/cluster/servers.py): the steps' image with moto beside it.
#   buildah build --file tests/cluster/servers.Dockerfile --build-context repository=. \
#       --build-arg STEPS=localhost/retain-steps:0.2.0 --tag localhost/retain-servers tests/cluster
#   STEPS  the image that containers/build made of containers/steps.Dockerfile
# Add `--build-context lent=FOLDER` and the secrets `settings` and `ca` where the machine has its own index or wheels.
# Run it with --lines and --bucket; ports are --git-port (8418) and --s3-port (9000); /scratch must be writable.
ARG STEPS

FROM scratch AS repository
FROM scratch AS lent

FROM ${STEPS}
USER 0:0
ARG UV_VERSION=0.13.9
RUN --mount=type=bind,from=repository,target=/repository --mount=type=bind,from=lent,target=/lent \
    --mount=type=secret,id=settings,target=/run/secrets/settings --mount=type=secret,id=ca,target=/run/secrets/ca \
    export HOME=/tmp/made TMPDIR=/tmp XDG_CACHE_HOME=/tmp/made UV_LINK_MODE=copy \
    && with="sh /repository/containers/with-settings" \
    && python3 -m venv /tmp/made/uv \
    && ${with} /tmp/made/uv/bin/pip install --quiet --no-cache-dir uv==${UV_VERSION} \
    && ${with} /tmp/made/uv/bin/uv pip install --quiet --compile-bytecode --python /opt/venv \
        -c /repository/constraints.txt 'moto[server]' \
    && rm -rf /tmp/made
COPY servers.py /opt/servers/servers.py
COPY --from=repository containers/git/pre-receive /opt/servers/pre-receive
USER 65532:65532
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/venv/bin/python", "/opt/servers/servers.py"]
CMD ["--root", "/scratch/git", "--lines", "line"]
